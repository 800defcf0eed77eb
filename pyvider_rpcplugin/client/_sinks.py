"""Where a plugin's output goes: the kinds of things that a host may name for it."""

from __future__ import annotations

import codecs
import inspect
import io
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread

from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    class _Writable(Protocol):
        """A file, for text or for bytes."""

        def write(self, data: Any, /) -> object: ...

    class _Sending(Protocol):
        """A stream of anyio's, for bytes or for objects."""

        def send(self, item: bytes, /) -> Awaitable[object]: ...

    OutputSink: TypeAlias = Callable[[bytes], object] | _Writable | _Sending

    Deliver = Callable[[bytes], Awaitable[object]]


def delivery(sink: OutputSink, option: str) -> Deliver:
    """Return what takes output there, one piece after the other.

    Args:
        sink: A stream to send to, a file to write to, or a function to call.
        option: How the sink was given, for the error.

    Raises:
        ConfigError: It is none of these.
    """
    target: Any = sink
    if callable(getattr(target, "send", None)):

        async def send(data: bytes) -> None:
            await target.send(data)

        return send
    if callable(getattr(target, "write", None)):
        return _to_text_file(target) if _takes_text(target) else _to_binary_file(target)
    if callable(target):

        async def call(data: bytes) -> None:
            result = target(data)
            if inspect.isawaitable(result):
                await result

        return call
    msg = f"{option} is {type(sink).__name__}: accepted is a function, a file or a stream"
    raise ConfigError(msg, phase="settings")


def _takes_text(file: Any) -> bool:
    if isinstance(file, io.RawIOBase | io.BufferedIOBase):
        return False
    if isinstance(file, io.TextIOBase):
        return True
    # Something that wraps a file, as those of tempfile do.
    return "b" not in str(getattr(file, "mode", ""))


def _to_text_file(file: Any) -> Deliver:
    # A piece may end in the middle of a character.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        file.write(decoder.decode(data))
        _flush(file)

    return _beside(file, write)


def _to_binary_file(file: Any) -> Deliver:
    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = file.write(rest)
            # Only unbuffered files take less than they are given.
            rest = rest[written if isinstance(written, int) else len(rest) :]
        _flush(file)

    return _beside(file, write)


def _beside(file: Any, write: Callable[[bytes], None]) -> Deliver:
    """Write in a thread, if it is a file that may block: a pipe, a terminal that was stopped."""
    if isinstance(file, io.StringIO | io.BytesIO):

        async def write_here(data: bytes) -> None:
            write(data)

        return write_here
    limiter: anyio.CapacityLimiter | None = None

    async def write_beside(data: bytes) -> None:
        nonlocal limiter
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(write, data, abandon_on_cancel=True, limiter=limiter)

    return write_beside


def _flush(file: Any) -> None:
    flush = getattr(file, "flush", None)
    if flush is not None:
        flush()
