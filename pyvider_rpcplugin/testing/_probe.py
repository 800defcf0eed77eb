"""One start of a plugin's program, watched from outside: what it printed, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import unwrapped

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteReceiveStream, ByteStream, Process

    from pyvider_rpcplugin.handshake import HandshakeRecord
    from pyvider_rpcplugin.rpc import Channel

_MOST_KEPT = 1 << 20


class Output:
    """What a process has written to one of its outputs so far."""

    def __init__(self) -> None:
        self.data: bytearray = bytearray()
        self.ended = False
        self._changed = anyio.Event()

    @property
    def text(self) -> str:
        """It as text, as far as it is."""
        return self.data.decode(errors="replace")

    async def read(self, stream: ByteReceiveStream | None) -> None:
        """Read to the end; of a flood, only the beginning is kept."""
        if stream is not None:
            with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError, OSError):
                while True:
                    data = await stream.receive()
                    self.data += data[: _MOST_KEPT - len(self.data)]
                    self._notify()
        self.ended = True
        self._notify()

    async def change(self) -> None:
        """Wait for more, or for the end."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Probe:
    """A plugin's program that was started.

    Attributes:
        stdout: What it has printed.
        stderr: What it has written to its standard error.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.stdout = Output()
        self.stderr = Output()
        self.pid: int = process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def first_line(self, limit: float) -> str | None:
        """Wait for the first line that it prints.

        Args:
            limit: Seconds.

        Returns:
            The line without its end; None if there was none in time, or ever.
        """
        with anyio.move_on_after(limit):
            while b"\n" not in self.stdout.data and not self.stdout.ended:
                await self.stdout.change()
        line, end, _ = bytes(self.stdout.data).partition(b"\n")
        return line.decode(errors="replace").rstrip("\r") if end else None

    async def wait(self, limit: float) -> int | None:
        """Wait for its end, and for what it has written until then.

        Args:
            limit: Seconds.

        Returns:
            The exit status; None if it still runs.
        """
        with anyio.move_on_after(limit):
            await self._process.wait()
            with anyio.move_on_after(_LAST_WORDS):
                while not (self.stdout.ended and self.stderr.ended):
                    await (self.stderr if self.stdout.ended else self.stdout).change()
        return self.status

    async def handshake_line(self, limit: float) -> tuple[str | None, str]:
        """Wait for the handshake line, after whatever comes before it.

        Args:
            limit: Seconds.

        Returns:
            The line, or None if there was none in time, or ever; and what was seen instead.

        Raises:
            HandshakeError: There was too much else.
        """
        from pyvider_rpcplugin.handshake import HandshakeReader  # noqa: PLC0415 - when it has started

        reader = HandshakeReader()
        seen = 0
        with anyio.move_on_after(limit):
            while True:
                data = bytes(self.stdout.data[seen:])
                seen += len(data)
                reader.feed(data)
                if reader.line is not None or self.stdout.ended:
                    break
                await self.stdout.change()
        return reader.line, reader.seen

    def send_signal(self, number: int) -> None:
        """Send a signal to it and to what it has started, as a terminal does."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self.pid, number)
            else:
                self._process.send_signal(signal.Signals(number))


# Something that the program has started may hold its outputs open.
_LAST_WORDS = 0.5


def channel_to(
    record: HandshakeRecord, context: ssl.SSLContext | None
) -> AbstractAsyncContextManager[Channel]:
    """A channel, for the length of a block, to where the line said.

    The block is inside a task group: leave it in the task that entered it.
    """
    from pyvider_rpcplugin.rpc import Channel, open_channel  # noqa: PLC0415 - when it has started
    from pyvider_rpcplugin.transport import transport_for, wrap_client  # noqa: PLC0415 - likewise

    async def connect() -> ByteStream:
        stream: ByteStream = await transport_for(record.network, record.address).connect()
        return stream if context is None else await wrap_client(stream, context)

    return open_channel(Channel(connect, scheme="http" if context is None else "https"))


async def call_anything(channel: Channel, limit: float = 5.0) -> None:
    """Call something: any answer of the plugin's will do.

    Raises:
        GRPCError: There is none.
        RPCPluginError: It cannot be connected to.
    """
    from pyvider_rpcplugin.services import check_health  # noqa: PLC0415 - when it has started

    try:
        await check_health(channel, timeout=limit)
    except GRPCError as exc:
        if exc.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}:
            raise


@asynccontextmanager
async def probed(
    command: Sequence[str], environment: Mapping[str, str], cwd: str | None = None
) -> AsyncGenerator[Probe]:
    """Start a program for the length of a block, and end it by force after that.

    The block is inside a task group: leave it in the task that entered it.

    Raises:
        OSError: It cannot be started.
    """
    process = await anyio.open_process(
        list(command),
        stdin=subprocess.DEVNULL,
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,
    )
    probe = Probe(process)
    try:
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(probe.stdout.read, process.stdout)
                tg.start_soon(probe.stderr.read, process.stderr)
                try:
                    yield probe
                finally:
                    tg.cancel_scope.cancel()
    finally:
        # Also what it has started, if itself has ended.
        probe.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        with anyio.CancelScope(shield=True):
            await process.aclose()
