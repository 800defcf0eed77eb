"""What a plugin prints once it serves: taken from where it is printed, for the stdio service."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin._loops import caller_from_threads
from pyvider_rpcplugin.services import OutputBuffer, StdioChannel, StdioService

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

_STDOUT, _STDERR = 1, 2
_CHUNK = 65536
# What the host gets for taking what is left at the end.
_LAST_GRACE = 0.5
# Blocks the loop: only for the thread's last steps, which wait for nothing.
_JOIN_GRACE = 1.0
# Ends the reading. A last byte of this kind means that only after the end has been asked for.
_END = b"\0"


class CapturedOutput:
    """Takes what this process, its threads and its children print, from `begin` to `end`.

    Descriptor 1 becomes a pipe. It is read by a thread and not by the loop: a handler that prints
    more than a pipe holds would otherwise wait for itself. Descriptor 2 stays what it is, so that
    the last words of an interpreter that crashes find their way; only `sys.stderr` is replaced.

    Without `begin` nothing is taken, and the service has nothing to send.

    Attributes:
        service: What gives it to the host.
    """

    def __init__(self) -> None:
        self._output = OutputBuffer()
        self.service: StdioService = StdioService(self._output)
        self._pipe: tuple[int, int] | None = None
        self._stderr: _CapturedStderr | None = None
        self._stderr_before: Any = None
        self._stdout: Any = None
        self._thread: threading.Thread | None = None
        self._ending = False
        self._read_all = anyio.Event()
        self._process = os.getpid()
        # Held from the reading of a piece until it is in the buffer.
        self._in_hand = threading.Lock()
        self._flushing = False
        self._read_some = anyio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
        if self._thread is not None and self._pipe is not None:
            self._thread.join(_JOIN_GRACE)
            if not self._thread.is_alive():
                for descriptor in self._pipe:
                    os.close(descriptor)

    def begin(self) -> None:
        """From now on, take what is printed."""
        self._output.bind()
        self._pipe = reading, writing = os.pipe()
        # Not one of anyio's: on asyncio those keep the interpreter from ending where a handler
        # leaves it by `sys.exit`, and this one always waits for more.
        self._thread = threading.Thread(
            target=self._read, args=(reading, caller_from_threads()), name="plugin output"
        )
        self._thread.daemon = True
        self._thread.start()
        _flush()
        os.dup2(writing, _STDOUT)
        if _descriptor(sys.stdout) == _STDOUT and not getattr(sys.stdout, "line_buffering", True):
            # To a pipe, text would leave in blocks of some thousand characters.
            self._stdout = sys.stdout
            self._stdout.reconfigure(line_buffering=True)
        if _descriptor(sys.stderr) == _STDERR:
            self._stderr = _CapturedStderr(self._output)
            self._stderr_before = sys.stderr
            sys.stderr = self._stderr.as_text(sys.stderr)

    def end(self) -> None:
        """Put everything back. What is printed from now on goes to descriptor 2."""
        if self._pipe is None or self._ending or self._process != os.getpid():
            return
        self._ending = True
        self._output.hurry()
        _flush()
        os.dup2(_STDERR, _STDOUT)
        if self._stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stdout.reconfigure(line_buffering=False)
        if self._stderr is not None:
            self._stderr.end()
            if getattr(sys.stderr, "buffer", None) is self._stderr:
                sys.stderr = self._stderr_before
        os.write(self._pipe[1], _END)

    async def flush(self) -> None:
        """Give the host a moment to take what has been printed so far."""
        if self._pipe is None or self._ending:
            return
        _flush()
        self._flushing = True
        with anyio.move_on_after(_LAST_GRACE):
            while True:
                self._read_some = anyio.Event()
                if self._in_hand.acquire(blocking=False):
                    try:
                        if not _wait_for_data(self._pipe[0], 0):
                            break
                    finally:
                        self._in_hand.release()
                await self._read_some.wait()
            await self.service.flush()
        self._flushing = False

    def add(self, line: bytes) -> None:
        """Take a line as if it had been printed to `sys.stderr`, from any thread."""
        self._output.put(StdioChannel.STDERR, line, may_wait=False)

    async def finish(self) -> None:
        """End it, and give the host a moment to take what is left."""
        with anyio.move_on_after(_LAST_GRACE):
            if self._pipe is not None:
                self.end()
                await self._read_all.wait()
            await self.service.finish()

    def _read(self, reading: int, call: Callable[[Callable[[], object]], object]) -> None:
        over = False
        while not over:
            _wait_for_data(reading)
            with self._in_hand:
                data = os.read(reading, _CHUNK)
                over = not data or (self._ending and data.endswith(_END))
                if over:
                    data = data.removesuffix(_END)
                if data:
                    self._output.put(StdioChannel.STDOUT, data, may_wait=True)
            if self._flushing:
                _call_if_it_runs(call, self._note_read)
        _call_if_it_runs(call, self._read_all.set)

    def _note_read(self) -> None:
        self._read_some.set()


class _CapturedStderr(io.RawIOBase):
    """What stands behind `sys.stderr` meanwhile."""

    def __init__(self, output: OutputBuffer) -> None:
        self._output = output
        self._ended = False
        self._process = os.getpid()
        self._thread = threading.get_ident()
        self.name = "<stderr>"
        self.mode = "wb"

    def as_text(self, like: Any) -> io.TextIOWrapper:
        """Make a text stream of it, with the encoding of another one."""
        text = io.TextIOWrapper(
            self,
            encoding=getattr(like, "encoding", None) or "utf-8",
            errors="backslashreplace",
            write_through=True,
        )
        text.mode = "w"  # type: ignore[misc]
        return text

    def end(self) -> None:
        """Whoever still has it writes to descriptor 2 from now on."""
        self._ended = True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """What children are given, and where an interpreter that crashes writes."""
        return _STDERR

    def isatty(self) -> bool:
        return False

    def write(self, data: Any, /) -> int:
        octets = bytes(data)
        # In a forked child, nobody takes what is in its copy of the buffer.
        if self._ended or os.getpid() != self._process:
            return os.write(_STDERR, octets)
        may_wait = threading.get_ident() != self._thread
        self._output.put(StdioChannel.STDERR, octets, may_wait=may_wait)
        return len(octets)


def _wait_for_data(descriptor: int, timeout: float | None = None) -> bool:
    """Wait until there is something to read, or the timeout is over; say whether there is."""
    if not hasattr(select, "poll"):  # on Windows, where pipes cannot be waited for
        return timeout is None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout))


def _call_if_it_runs(
    call: Callable[[Callable[[], object]], object], function: Callable[[], object]
) -> None:
    # Both loops raise a RuntimeError of their own once they have ended.
    with contextlib.suppress(RuntimeError):
        call(function)


def _descriptor(stream: Any) -> int | None:
    try:
        descriptor: int = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A closed or broken stream has nothing that could be saved.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
