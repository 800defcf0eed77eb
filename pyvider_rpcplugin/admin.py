"""A private socket by which a host shows what its plugins do, to `pyvider-rpcplugin top` for one.

It lies in a folder that only the host's user may enter, and is found by the host's process number.
What is served there is a typed service of this library's, without encryption: who can reach the
socket is the host's user. It only shows; nothing can be changed by it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from bisect import bisect_left
from collections.abc import (
    AsyncGenerator,  # noqa: TC003 - resolved at run time
)
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import anyio
import msgspec

from pyvider_rpcplugin._tasks import Session, unwrapped
from pyvider_rpcplugin._version import __version__
from pyvider_rpcplugin.client import RPCPluginClient
from pyvider_rpcplugin.client.statistics import (
    ClientStatistics,  # noqa: TC001 - resolved at run time
)
from pyvider_rpcplugin.exception import RPCPluginError, TransportError
from pyvider_rpcplugin.process import resident_memory
from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy
from pyvider_rpcplugin.rpc import Channel, Server, open_channel
from pyvider_rpcplugin.transport import UnixSocketTransport
from pyvider_rpcplugin.transport._path import temporary_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyvider_rpcplugin.client import PluginHost
    from pyvider_rpcplugin.rpc import CallStatus, InterceptedCall, Interceptor, Observer

__all__ = [
    "AdminSocket",
    "ClientReport",
    "HostAdmin",
    "HostReport",
    "admin_socket",
    "find_hosts",
    "percentile",
    "report_of",
]

# From 50 us on, each bound is the one before times the square root of two; the last is 74 s.
_BOUNDS = tuple(5e-5 * 2 ** (step / 2) for step in range(42))
_END_LIMIT = 5.0


class ClientReport(msgspec.Struct, frozen=True, kw_only=True):
    """One client of a host.

    Attributes:
        number: Which of the host's it is, for as long as the socket is there.
        statistics: What it has done.
        memory: Resident memory of each of its plugins in bytes; None where the system does not say.
        latency: How many calls took how long: one number for each bucket, see `percentile`. Those
            count that have begun since the socket was opened, or, if the client was not running
            then, since the first report that shows it.
    """

    number: int
    statistics: ClientStatistics
    memory: tuple[int | None, ...]
    latency: tuple[int, ...]


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """A host, and the clients that it shows.

    Attributes:
        pid: Its process.
        command: What it was started with; octets that are no text are escaped.
        version: That of this library.
        python: That of Python.
        time: When this was said, in seconds since 1970.
        memory: Its own resident memory in bytes; None where the system does not say.
        clients: Those that are running.
    """

    pid: int
    command: tuple[str, ...]
    version: str
    python: str
    time: float
    memory: int | None
    clients: tuple[ClientReport, ...]


def percentile(latency: Sequence[int], share: float) -> float | None:
    """How many seconds that share of the calls took at most, by the numbers of the buckets.

    A bucket ends 1.4 times as late as it begins: that is how exact it is.

    Args:
        latency: How many calls there were in each bucket; the difference between two reports.
        share: From 0 to 1.

    Returns:
        None if there were no calls.
    """
    wanted = share * sum(latency)
    if not wanted:
        return None
    seen = 0
    for index, number in enumerate(latency):
        if seen + number >= wanted:
            end = _BOUNDS[min(index, len(_BOUNDS) - 1)]
            begin = _BOUNDS[index - 1] if index else 0.0
            return begin + (end - begin) * (wanted - seen) / number
        seen += number
    return _BOUNDS[-1]


class AdminSocket:
    """The socket, while it is there.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: str, watched: Iterable[RPCPluginClient | PluginHost]) -> None:
        self.path = path
        self._watched: list[RPCPluginClient | PluginHost] = list(watched)
        self._recorders: WeakKeyDictionary[RPCPluginClient, _Recorder] = WeakKeyDictionary()
        self._numbers = 0

    def watch(self, *watched: RPCPluginClient | PluginHost) -> None:
        """Show these clients, too, and those of these hosts."""
        self._watched += watched
        self._running()

    def _running(self) -> list[tuple[RPCPluginClient, _Recorder]]:
        """The clients that run; the calls of each are timed from here on."""
        found: list[tuple[RPCPluginClient, _Recorder]] = []
        for client in self._clients():
            channel = client.grpc_channel
            if channel is None:
                continue
            recorder = self._recorders.get(client)
            if recorder is None:
                self._numbers += 1
                recorder = self._recorders[client] = _Recorder(self._numbers)
            recorder.attach(channel)
            found.append((client, recorder))
        return found

    def _clients(self) -> Iterable[RPCPluginClient]:
        for one in self._watched:
            yield from (one,) if isinstance(one, RPCPluginClient) else one.clients

    def report(self) -> HostReport:
        """What is shown now."""
        clients: list[ClientReport] = []
        for client, recorder in self._running():
            statistics = client.statistics()
            name = _as_text(statistics.name)
            pids = [plugin.pid for plugin in statistics.plugins]
            clients.append(
                ClientReport(
                    number=recorder.number,
                    statistics=msgspec.structs.replace(statistics, name=name),
                    memory=tuple(None if pid is None else resident_memory(pid) for pid in pids),
                    latency=tuple(recorder.counts),
                )
            )
        return HostReport(
            pid=os.getpid(),
            command=tuple(map(_as_text, sys.orig_argv)),
            version=__version__,
            python=sys.version.split()[0],
            time=time.time(),
            memory=resident_memory(os.getpid()),
            clients=tuple(clients),
        )

    async def serve(self, session: Session[None]) -> None:
        """Be there until the session is stopped."""
        self._running()
        try:
            with unwrapped():
                async with (
                    UnixSocketTransport(self.path).listen() as listener,
                    anyio.create_task_group() as tg,
                ):
                    server = Server([TypedService(HostAdmin(self))])
                    await tg.start(server.serve, listener)
                    session.started(None)
                    await session.stop_requested.wait()
                    await server.stop(0)
                    tg.cancel_scope.cancel()
        finally:
            for recorder in self._recorders.values():
                recorder.detach()


class HostAdmin:
    """What a host shows of its plugins."""

    def __init__(self, shown: AdminSocket) -> None:
        self._shown = shown

    async def report(self) -> HostReport:
        """What they have done so far."""
        return self._shown.report()


class _Recorder:
    """Notes how long the calls of a client take, in buckets."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts = [0] * (len(_BOUNDS) + 1)
        self._channel: Channel | None = None
        self._interceptor: Interceptor | None = None

    def attach(self, channel: Channel) -> None:
        """See the calls that begin on a channel from now on."""
        if self._channel is channel:
            return
        from pyvider_rpcplugin.client._interceptors import (  # noqa: PLC0415 - as they are there
            of_the_application,
        )

        self.detach()
        [interceptor] = of_the_application([self._intercept])
        channel.interceptors = (interceptor, *channel.interceptors)
        self._channel, self._interceptor = channel, interceptor

    def detach(self) -> None:
        """See no more calls."""
        channel = self._channel
        if channel is not None:
            left = tuple(one for one in channel.interceptors if one is not self._interceptor)
            channel.interceptors = left
        self._channel = self._interceptor = None

    async def _intercept(self, _: InterceptedCall) -> Observer:
        began = time.perf_counter()

        def ended(_: CallStatus) -> None:
            self.counts[bisect_left(_BOUNDS, time.perf_counter() - began)] += 1

        return ended


@asynccontextmanager
async def admin_socket(
    *watched: RPCPluginClient | PluginHost, path: str | os.PathLike[str] | None = None
) -> AsyncGenerator[AdminSocket]:
    """Show these clients, and those of these hosts, for the length of a block.

    Each of their calls takes some microseconds longer meanwhile, since it is timed.

    Args:
        watched: What is shown, whenever it runs; may be added to by `watch`.
        path: Where the socket is; by default where `find_hosts` looks for it.

    Yields:
        The socket.

    Raises:
        TransportError: There is no place for it, or there is one already.

    Cancellation:
        Nothing but who watches notices.
    """
    where = _own_path() if path is None else os.fspath(path)
    shown = AdminSocket(where, watched)
    session = Session(
        shown.serve,
        name="plugin admin socket",
        advice="leave the block of admin_socket()",
        limit=_END_LIMIT,
    )
    session.spawn()
    await session.wait_started()
    try:
        yield shown
    finally:
        session.request_stop()
        await session.wait_finished()


def find_hosts() -> dict[int, str]:
    """Find the sockets of this user's hosts, by their process numbers."""
    found: dict[int, str] = {}
    for folder in _folders():
        with contextlib.suppress(OSError, TransportError):
            _check_private(folder)
            for entry in os.scandir(folder):
                name, dot, kind = entry.name.partition(".")
                if dot and kind == "sock" and name.isdecimal() and _runs(int(name)):
                    found.setdefault(int(name), entry.path)
    return found


@asynccontextmanager
async def report_of(path: str | os.PathLike[str]) -> AsyncGenerator[Any]:
    """Connect to the socket of a host, for the length of a block.

    The block is inside a task group: leave it in the task that entered it.

    Yields:
        What has the method `async report() -> HostReport`.

    Raises:
        TransportError: Nobody listens there.
    """
    channel = Channel(UnixSocketTransport(path).connect)
    async with open_channel(channel):
        yield make_proxy(HostAdmin, channel)


def _folders() -> list[str]:
    """Where the folder may be."""
    if not hasattr(os, "getuid"):
        return []
    name = f"pyvider-rpcplugin-{os.getuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parents = [runtime] if os.path.isabs(runtime) else []
    return [os.path.join(parent, name) for parent in (*parents, *temporary_folders())]


def _own_path() -> str:
    """Where this process's socket is to be; the folder is made.

    Raises:
        TransportError: There is no place for it.
    """
    failure: Exception = RPCPluginError("this system has no unix sockets")
    for folder in _folders():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            _check_private(folder)
            _sweep(folder)
        except (OSError, TransportError) as exc:
            failure = exc
        else:
            return os.path.join(folder, f"{os.getpid()}.sock")
    msg = f"there is no place for the admin socket: {failure}"
    raise TransportError(msg, hint="give admin_socket() a path") from failure


def _check_private(folder: str) -> None:
    """See that a folder is this user's, and nobody else's.

    Raises:
        TransportError: It is not.
        OSError: It is not there.
    """
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        msg = f"{folder} is not a folder of this user's alone"
        raise TransportError(msg, hint="remove it, or make it so")


def _sweep(folder: str) -> None:
    """Remove the sockets of hosts that were killed."""
    for entry in os.scandir(folder):
        name = entry.name.removesuffix(".sock")
        if name.isdecimal() and not _runs(int(name)):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _as_text(word: str) -> str:
    """An argument that is no text, but octets, cannot be sent as it is."""
    return word.encode("utf-8", "backslashreplace").decode()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
