"""The life of a plugin's process, from its start to its end, in one `async with` block."""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

import anyio

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._patience import patience
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import ConfigError, PluginExit, RPCPluginError, TransportError
from pyvider_rpcplugin.process._diagnose import check_command, explain
from pyvider_rpcplugin.process._lines import LONGEST_LINE, LineSplitter
from pyvider_rpcplugin.process._spec import RunSpec

if sys.platform == "win32":
    from pyvider_rpcplugin.process._windows import Child, PipeReader, reap_released, settled
else:
    from pyvider_rpcplugin.process._posix import Child, PipeReader, reap_released, settled

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from pyvider_rpcplugin.process.limits import ResourceLimits
    from pyvider_rpcplugin.process.runners import AttachedRunner, ByteSource, Runner

logger = event_logger(__name__)

STDERR_LINES_KEPT = 64
_CHUNK = 65536
# Each line costs, and so many octets may be as many lines: between two of these pieces other tasks
# run, however much the process writes.
_STDERR_CHUNK = 4096

POLITE_GRACE = 2.0
TERM_GRACE = 1.0
# SIGKILL cannot be refused: only a process that is stuck in the kernel takes longer.
_KILL_GRACE = 5.0
# For what waits in the pipes after the end; reading it only takes time if the loop is busy.
_LAST_WORDS_GRACE = 1.0
# Blocks the loop: only for a cleanup that was itself cancelled against its shield.
_LAST_RESORT_GRACE = 1.0


@asynccontextmanager
async def subprocess_runner(
    spec: RunSpec, *, executable: str | None = None, pass_fds: Sequence[int] = ()
) -> AsyncGenerator[Child, None]:
    """Start a process of this machine; the runner that clients use by themselves.

    One's own runner can be built on it, by changing the spec that goes in, or the runner that
    comes out (`WrappedRunner`).

    Args:
        spec: What to start.
        executable: The path of what is executed, where it is not the command's first word.
        pass_fds: Descriptors that the process gets.

    Yields:
        The runner. Leaving the block ends the process and its children, if they live.

    Raises:
        TransportError: It cannot be started: no such file, not executable, and so on.
        ConfigError: The command is not a list of words, or the environment is malformed.
    """
    words = check_command(spec.command)
    if spec.outlives_host and spec.stdin == "inherit":
        msg = "a plugin that outlives its host cannot read from its host's terminal"
        raise ConfigError(msg, 'Leave stdin="inherit" out, or outlive_host.', phase="launch")
    reap_released()
    # No await between here and the `try` that ends the child: nobody can cancel in between.
    try:
        child = Child(
            words,
            spec.env,
            spec.cwd,
            spec.stdin,
            executable,
            pass_fds,
            own_session=spec.outlives_host,
        )
    except (OSError, ValueError) as error:
        await settled()
        raise explain(error, words, spec.env, spec.cwd) from error
    try:
        if spec.limits is not None:
            spec.limits.apply(child.pid)
        yield child
    finally:
        if child.has_ended():
            child.reap()
        elif not child.kill_and_wait(_LAST_RESORT_GRACE):
            logger.warning("process.left pid=%d", child.pid)
        child.close()
        await settled()


@asynccontextmanager
async def supervised(
    runner: AbstractAsyncContextManager[Runner | AttachedRunner],
    *,
    on_stderr: Callable[[bytes], object] | None = None,
    on_stderr_line: Callable[[str], None] | None = None,
    longest_line: int = LONGEST_LINE,
    term_grace: float = TERM_GRACE,
) -> AsyncGenerator[PluginProcess, None]:
    """Start what a runner starts, watch it, and end it with the block.

    Args:
        runner: What starts it, to be entered here.
        on_stderr: Called with what it writes to stderr, as it comes, in pieces of any size.
        on_stderr_line: Called with each line that it writes to stderr, as it comes.
        longest_line: Lines of stderr with more bytes than this come in pieces.
        term_grace: How many seconds being asked gets at the end of the block.

    Yields:
        The process.

    Raises:
        TransportError: It cannot be started; or the runner has failed while it ran, and cancelled
            what was inside of it.

    Cancellation:
        Safe everywhere; leaving the block takes at most `term_grace` and some seconds.
    """
    failure: BaseException | None = None
    try:
        async with AsyncExitStack() as stack:
            started = await _enter(stack, runner)
            process = PluginProcess(started, on_stderr, on_stderr_line, longest_line)
            logger.debug("process.started id=%s", process.id)
            try:
                async with process.watched(term_grace):
                    yield process
            except BaseException as error:  # noqa: BLE001 - raised again below
                # It is none of the runner's: a task group in there would wrap it.
                failure = error
    except Exception as error:
        if failure is None:
            raise
        if isinstance(failure, anyio.get_cancelled_exc_class()):
            # Unless somebody else has cancelled this, it was a task group of the runner's.
            await anyio.lowlevel.checkpoint_if_cancelled()
            msg = f"the runner has failed: {str(error) or type(error).__name__}"
            raise TransportError(msg, phase="wait") from error
        logger.exception("process.runner.cleanup_failed")
    if failure is not None:
        raise failure


async def _enter(
    stack: AsyncExitStack, runner: AbstractAsyncContextManager[Runner | AttachedRunner]
) -> Runner | AttachedRunner:
    try:
        return await stack.enter_async_context(runner)
    except RPCPluginError:
        raise
    except Exception as error:
        msg = f"the runner has failed: {str(error) or type(error).__name__}"
        raise TransportError(msg, phase="launch") from error


def start_process(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None = None,
    stdin: Literal["null", "inherit"] = "null",
    on_stderr_line: Callable[[str], None] | None = None,
    term_grace: float = TERM_GRACE,
    executable: str | None = None,
    pass_fds: Sequence[int] = (),
    limits: ResourceLimits | None = None,
) -> AbstractAsyncContextManager[PluginProcess]:
    """Start a process that lives at most as long as the `async with` block.

    Whatever ends the block, the process and its children are gone afterwards: asked by SIGTERM,
    and ended by SIGKILL if that does not help. To end it politely, call
    `PluginProcess.shutdown` before.

    Args:
        command: The program and its arguments; no shell is involved.
        env: The whole environment of the process.
        cwd: The folder to start it in.
        stdin: "null", or "inherit" for a process that reads from our terminal. It then stays in
            our process group, and only the process itself is ended, not what it started.
        on_stderr_line: Called with each line that it writes to stderr, as it comes.
        term_grace: How many seconds SIGTERM gets at the end of the block.
        executable: The path of what is executed, where it is not the command's first word.
        pass_fds: Descriptors that the process gets.
        limits: What it may use.

    Yields:
        The process.

    Raises:
        TransportError: It cannot be started: no such file, not executable, and so on.
        ConfigError: The command is not a list of words, or the environment is malformed.

    Cancellation:
        Safe everywhere; leaving the block takes at most `term_grace` and some seconds.
    """
    spec = RunSpec(
        command=check_command(command),
        env=dict(env),
        cwd=None if cwd is None else os.fspath(cwd),
        stdin=stdin,
        limits=limits,
    )
    runner = subprocess_runner(spec, executable=executable, pass_fds=pass_fds)
    return supervised(runner, on_stderr_line=on_stderr_line, term_grace=term_grace)


class PluginProcess:
    """What a runner has started, or attached to: watched, heard out, and ended.

    An attached one has no output of its own here: that went to who started it.
    """

    def __init__(
        self,
        runner: Runner | AttachedRunner,
        on_stderr: Callable[[bytes], object] | None = None,
        on_stderr_line: Callable[[str], None] | None = None,
        longest_line: int = LONGEST_LINE,
    ) -> None:
        self.runner: Runner | AttachedRunner = runner
        self._out: ByteSource | None = getattr(runner, "stdout", None)
        self._err: ByteSource | None = getattr(runner, "stderr", None)
        self.left: bool = False
        self._status: int | None = None
        self._on_stderr = on_stderr
        self._on_stderr_line = on_stderr_line
        self._lines = LineSplitter(longest_line)
        self._tail: deque[str] = deque(maxlen=STDERR_LINES_KEPT)
        self._sink: Callable[[bytes], None] | None = None
        self._stdout = anyio.Lock()
        self._ladder = anyio.Lock()
        self._stopping = anyio.Event()
        self._supervised = anyio.Event()
        self._watched = anyio.Event()
        self._stderr_ended = anyio.Event()
        # The supervision ends with the block, not with whoever is cancelled around it: the child
        # is watched and heard until it has ended.
        self._supervision = anyio.CancelScope(shield=True)
        self.exited: anyio.Event = anyio.Event()
        """Set when the process has ended, its group is gone, and `exit` is complete."""

    def __repr__(self) -> str:
        state = self.exit.describe() if self.exited.is_set() else "running"
        return f"<PluginProcess {self.id} {state}>"

    @asynccontextmanager
    async def watched(self, term_grace: float) -> AsyncGenerator[None, None]:
        """Watch the process and hear it out in an `async with` block, and end it with the block.

        Not for users: `supervised` does it.
        """
        failure: BaseException | None = None
        # The tasks never fail, but trio may raise KeyboardInterrupt in any of them.
        with unwrapped():
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(self._supervise, name=f"process {self.id}")
                try:
                    yield
                except BaseException as error:  # noqa: BLE001 - raised again below
                    # The group would wrap it, and it is not the group's.
                    failure = error
                await self._end(term_grace)
        if failure is not None:
            raise failure

    @property
    def id(self) -> str:
        """What its runner calls it: the process's number, or the name of a container."""
        return self.runner.id

    @property
    def pid(self) -> int | None:
        """The process's number; None where it has none on this machine."""
        return self.runner.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._status

    @property
    def exit(self) -> PluginExit:
        """What is known so far of its end: the status, and its last lines on stderr."""
        return PluginExit(self._status, tuple(self._tail))

    async def wait(self) -> PluginExit:
        """Wait until the process has ended.

        Cancellation:
            Safe: the process runs on.
        """
        await self.exited.wait()
        return self.exit

    async def read_stdout(self, max_bytes: int = _CHUNK) -> bytes:
        """Take what the process has written to stdout, or wait for it.

        Returns:
            The bytes; b"" at the end.

        Raises:
            anyio.BusyResourceError: Another task reads it.

        Cancellation:
            Safe: nothing is lost.
        """
        await self._begin_reading()
        try:
            return await _read(self._out, max_bytes)
        finally:
            self._stdout.release()

    async def drain_stdout(self, sink: Callable[[bytes], None] | None = None) -> None:
        """Read stdout to its end, so that the process never has to wait for a reader.

        Args:
            sink: Called with each chunk as it comes. It stays in use while the process is being
                ended, even if this call has been cancelled by then.

        Cancellation:
            Safe: nothing is lost.
        """
        self._sink = sink
        await self._begin_reading()
        try:
            await self._copy_stdout()
        finally:
            self._stdout.release()

    async def shutdown(
        self,
        *,
        polite: Callable[[], Awaitable[object]] | None = None,
        grace: float = POLITE_GRACE,
        term_grace: float = TERM_GRACE,
    ) -> PluginExit:
        """End the process, as politely as it lets us, and be sure that it has ended.

        It is asked by `polite`, then its group is asked by SIGTERM, then ended by SIGKILL; each
        step only if the one before has not helped in time.

        Args:
            polite: Asks the process to end. If it raises, the next step follows at once.
            grace: How many seconds `polite` and the end that it leads to may take together; a
                little more where many processes are ended at the same time, as for the next step.
            term_grace: How many seconds SIGTERM gets.

        Returns:
            How it ended. Calling it again, also at the same time, gives the same.

        Cancellation:
            It is not cancelled: it takes its time, which is bounded.
        """
        self._stopping.set()
        with anyio.CancelScope(shield=True):
            async with self._ladder:
                if polite is not None and not self.exited.is_set():
                    await self._ask(polite, grace)
                await self._force(term_grace)
        return self.exit

    def abandon(self) -> None:
        """End the process at once where no event loop is left to do it.

        The pipes stay: what the dead loop has of them is not to be touched.
        """
        child = self.runner
        if self._status is None and isinstance(child, Child):
            if not child.kill_and_wait(_LAST_RESORT_GRACE):
                return
            self._status = child.reap()

    def leave(self) -> None:
        """Let it live on when the block ends.

        Raises:
            RPCPluginError: Its runner cannot do that.
        """
        if self._out is not None:
            release = getattr(self.runner, "release", None)
            if release is None:
                msg = "the plugin cannot be left running: its runner has no release()"
                raise RPCPluginError(msg, phase="detach")
            release()
        self.left = True

    async def _ask(self, polite: Callable[[], Awaitable[object]], grace: float) -> None:
        with patience(grace, "process") as scope:
            try:
                await polite()
            except Exception as error:  # noqa: BLE001 - whatever it is, there are harder ways
                logger.debug("process.shutdown.refused id=%s error=%r", self.id, error)
                return
            await self._wait_exited()
        if scope.cancelled_caught and not self.exited.is_set():
            logger.warning("process.shutdown.slow id=%s step=polite s=%g", self.id, grace)

    async def _force(self, term_grace: float) -> None:
        for step, send, seconds in (
            ("SIGTERM", self.runner.terminate, term_grace),
            ("SIGKILL", self.runner.kill, _KILL_GRACE),
        ):
            if self.exited.is_set():
                return
            with patience(seconds, "process"):
                try:
                    await send()
                except Exception:
                    logger.exception("process.shutdown.failed id=%s step=%s", self.id, step)
                await self._wait_exited()
            if not self.exited.is_set():
                logger.warning("process.shutdown.slow id=%s step=%s s=%g", self.id, step, seconds)

    async def _end(self, term_grace: float) -> None:
        """The end of the block: nothing of the process is left after it, unless it is to be."""
        try:
            if self.left:
                return
            await self.shutdown(term_grace=term_grace)
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST_WORDS_GRACE):
                await self._supervised.wait()
        finally:
            # asyncio's own Task.cancel() knows no shields. The supervision, which is shielded,
            # must not be waited for then: what is left to do is done without awaiting.
            self._supervision.cancel()

    async def _supervise(self) -> None:
        """Watch the process and hear it out."""
        try:
            with self._supervision, unwrapped():
                async with anyio.create_task_group() as task_group:
                    task_group.start_soon(self._watch)
                    task_group.start_soon(self._relay_stderr)
                    if self._out is not None:
                        task_group.start_soon(self._take_over_stdout)
        finally:
            self._watched.set()  # an interrupt may come before the watching has begun
            self._supervised.set()

    async def _wait_exited(self) -> None:
        """Wait for the end, also where nobody watches for it any more.

        A loop of asyncio that ends cancels every task, and knows no shields; trio may raise
        KeyboardInterrupt in any task.
        """
        await self._watched.wait()
        if not self.exited.is_set():
            await self._note_end()

    async def _watch(self) -> None:
        try:
            await self._note_end()
        finally:
            self._watched.set()

    async def _note_end(self) -> None:
        try:
            self._status = await self.runner.wait()
        except Exception:
            # Whether it lives is not known now, but it is out of control: its session ends.
            logger.exception("process.runner.wait_failed id=%s", self.id)
        await self._hear_last_words()
        logger.debug("process.ended id=%s status=%s", self.id, self._status)
        self.exited.set()

    async def _hear_last_words(self) -> None:
        """Have what it said at last in `exit`, now rather than when the relay's turn comes."""
        if isinstance(self._err, PipeReader):
            # It is in the pipe.
            self._err.finish()
            while data := self._err.read_nowait(_CHUNK):
                self._hear(data)
        elif self._err is not None:
            with anyio.move_on_after(_LAST_WORDS_GRACE):
                await self._stderr_ended.wait()
        self._take_stderr(self._lines.flush())
        if isinstance(self._out, PipeReader):
            self._out.finish()

    async def _relay_stderr(self) -> None:
        try:
            while data := await _read(self._err, _STDERR_CHUNK):
                self._hear(data)
            self._take_stderr(self._lines.flush())
        finally:
            self._stderr_ended.set()

    def _hear(self, data: bytes) -> None:
        self._tell(self._on_stderr, data)
        self._take_stderr(self._lines.feed(data))

    def _take_stderr(self, lines: list[str]) -> None:
        self._tail.extend(lines)
        for line in lines:
            self._tell(self._on_stderr_line, line)

    def _tell(self, callback: Callable[[T], object] | None, what: T) -> None:
        if callback is None:
            return
        try:
            callback(what)
        except Exception:
            logger.exception("process.stderr.callback_failed id=%s", self.id)

    async def _begin_reading(self) -> None:
        try:
            self._stdout.acquire_nowait()
        except anyio.WouldBlock:
            if not self._stopping.is_set():
                action = "reading stdout of"
                raise anyio.BusyResourceError(action) from None
            await self._stdout.acquire()

    async def _take_over_stdout(self) -> None:
        """Go on reading while the process is being ended, when others have stopped.

        A process that writes a lot before it ends would otherwise wait for a reader for ever.
        """
        await self._stopping.wait()
        async with self._stdout:
            await self._copy_stdout()

    async def _copy_stdout(self) -> None:
        while data := await _read(self._out, _CHUNK):
            if self._sink is not None:
                try:
                    self._sink(data)
                except Exception:
                    logger.exception("process.stdout.callback_failed id=%s", self.id)


async def _read(stream: ByteSource | None, max_bytes: int) -> bytes:
    """Wait for bytes; b"" at the end, be it a good one or not."""
    if stream is None:
        return b""
    try:
        return await stream.receive(max_bytes)
    except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
        return b""
