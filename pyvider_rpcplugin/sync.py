"""For programs without an event loop: plugins by `with`, calls as plain functions.

What a plugin needs besides its calls (its start, its supervision, its logs, its end) runs in an
event loop in a background thread, one for all clients. The calls themselves go over a connection of
their own, which the calling threads drive.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import warnings
from _thread import start_new_thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import anyio
from anyio.from_thread import BlockingPortalProvider
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._forks import keep_from_children
from pyvider_rpcplugin._interrupts import interruptible, interrupts, protected
from pyvider_rpcplugin.client._launch import Launch
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError, TransportError
from pyvider_rpcplugin.factories import plugin_client
from pyvider_rpcplugin.rpc._blocking import BlockingChannel
from pyvider_rpcplugin.rpc._blocking_calls import make_blocking
from pyvider_rpcplugin.rpc._blocking_grpcio import SyncChannel
from pyvider_rpcplugin.rpc._channel import gone_error
from pyvider_rpcplugin.rpc._metadata import effective_deadline
from pyvider_rpcplugin.rpc.errors import DeadlineExceeded
from pyvider_rpcplugin.services import PLUGIN_SERVICE, ServingStatus, check_health
from pyvider_rpcplugin.transport import blocking_socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    import grpclib.client
    from anyio.from_thread import BlockingPortal

    from pyvider_rpcplugin.client import RPCPluginClient
    from pyvider_rpcplugin.client._launch import Link
    from pyvider_rpcplugin.client.statistics import ClientStatistics
    from pyvider_rpcplugin.discovery import PluginProgram
    from pyvider_rpcplugin.exception import PluginExit
    from pyvider_rpcplugin.rpc import Channel, ClientStream, Deadline
    from pyvider_rpcplugin.rpc._blocking_calls import Driver
    from pyvider_rpcplugin.transport import BlockingSocket

    AnyCall = ClientStream[Any, Any]

__all__ = ["SyncPluginClient", "plugin_client_sync"]

_T = TypeVar("_T")
_StreamT = TypeVar("_StreamT")

# What was begun in the background and is given up gets so long to clean up.
_GIVE_UP_TIMEOUT = 15.0

_loops = {name: BlockingPortalProvider(name) for name in ("asyncio", "trio")}
_running: set[_Runtime] = set()


def plugin_client_sync(
    command: Sequence[str | os.PathLike[str]] | PluginProgram | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    backend: Literal["asyncio", "trio"] = "asyncio",
    **options: Any,
) -> SyncPluginClient:
    """Make the client of a plugin for a program without an event loop.

    Args:
        command: The program and its arguments; no shell is used.
        config: Settings for this client (`PLUGIN_...`), and keys of the application's own.
        backend: What the background thread's event loop is one of.
        options: All that `plugin_client` takes besides. Functions among them are called in the
            background thread.

    Returns:
        The client, not started. What is wrong with the command or with the settings is raised by
        `start()`, or by entering its block.

    Raises:
        ConfigError: A keyword is neither an option nor a setting, or there is no such backend.
    """
    if backend not in _loops:
        msg = f"backend is {backend!r}: accepted is 'asyncio' or 'trio'"
        raise ConfigError(msg)
    return SyncPluginClient(plugin_client(command, config, **options), backend=backend)


class SyncPluginClient:
    """Starts a plugin, calls it, and ends it, from any threads. Made by `plugin_client_sync`.

    `with client:` starts it and ends it; so do `start` and `stop`. A client that was stopped can be
    started again. A process that `os.fork` makes has to start clients of its own.
    """

    def __init__(
        self, client: RPCPluginClient, *, backend: Literal["asyncio", "trio"] = "asyncio"
    ) -> None:
        self._client = client
        self._backend = backend
        self._runtime: _Runtime | None = None
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        state = "running" if self._runtime is not None else "not running"
        return f"<SyncPluginClient {self.name} {state}>"

    # Life.

    def start(self) -> Self:
        """Start the plugin and connect to it. Somebody has to call `stop`, or use `with` instead.

        Raises:
            TransportError: The plugin cannot be started or reached.
            HandshakeError: It did not say how it can be reached, or is not the plugin meant.
            SecurityError: It wants what this client cannot verify.
            ConfigError: A setting, or the command, is wrong.
            RPCPluginError: This client is running.
            KeyboardInterrupt: Ctrl-C; what was started is ended first, within some seconds.
        """
        try:
            self._start()
        finally:
            if interrupts.pending:
                interrupts.deliver()
        return self

    def stop(self) -> None:
        """End the plugin and close the connections, whatever state they are in.

        The plugin is asked first, and ended by force if that does not help in time. Running calls
        end with CANCELLED. Stopping a client that is not running does nothing.

        Raises:
            KeyboardInterrupt: Ctrl-C, when the plugin has ended; the second one ends it by force.
        """
        try:
            self._stop()
        finally:
            if interrupts.pending:
                interrupts.deliver()

    def close(self) -> None:
        """The same as `stop`."""
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    @protected
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @protected
    def _start(self) -> None:
        with self._turn:
            if self._runtime is not None:
                msg = f"the client of plugin {self.name} is running already"
                hint = "stop() it first, or make another one"
                raise RPCPluginError(msg, hint=hint, phase="launch")
            runtime = _Runtime(self._client, self._backend)
            runtime.start()
            self._runtime = runtime

    @protected
    def _stop(self) -> None:
        with self._turn:
            runtime, self._runtime = self._runtime, None
            if runtime is not None:
                runtime.stop()

    # Calls.

    @property
    def grpc_channel(self) -> SyncChannel:
        """The channel for stubs that grpcio's plugin has generated: `GreeterStub(client.grpc_channel)`.

        It may be used before the start, and stays good when the client is started again.
        """
        return SyncChannel(self._current)

    # What grpclib's plugin generates is annotated with coroutines, which these methods are not.
    @overload
    def stub(self, stub_class: Callable[[grpclib.client.Channel], object]) -> Any: ...

    @overload
    def stub(self, stub_class: type[_T]) -> _T: ...

    def stub(self, stub_class: Callable[[Any], Any]) -> Any:
        """Make a stub whose methods are plain functions.

        It may be made before the start, and it stays good when the client is started again.

        Args:
            stub_class: A class that grpclib's plugin has generated: its methods then take the
                request, or an iterable of requests, and give the reply, or an iterator over the
                replies. Or one that grpcio's plugin or betterproto2's has, in its blocking form.
        """
        return make_blocking(stub_class(SyncChannel(self._current)), self._current)

    def proxy(
        self,
        interface: Callable[..., object],
        *,
        service_name: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> Any:
        """Make an object with the methods of an interface, each of which is a call of this plugin.

        They are plain functions here: what is an async iterator in the interface, as an argument or
        as a result, is an iterator. It may be made before the start, and it stays good when the
        client is started again.

        Args:
            interface: The class that the plugin serves, or a typing.Protocol with its methods. They
                may also be written as plain functions there, which is what type checkers want:
                `greeter: Greeter = client.proxy(Greeter)`.
            service_name: The service's name; by default the interface's.
            timeout: Seconds that each of its calls may take.
            metadata: What is sent along with each.

        Raises:
            ProtocolError: A method of the interface cannot be called from elsewhere.
        """
        from pyvider_rpcplugin.protocol.typed._blocking import (  # noqa: PLC0415 - not for stubs
            make_blocking_proxy,
        )

        return make_blocking_proxy(
            interface,
            self._current,
            service_name=service_name,
            timeout=timeout,
            metadata=metadata,
        )

    def ping(self, timeout: float | None = None) -> None:
        """Ask the plugin's health service whether it serves.

        Args:
            timeout: Seconds that it may take.

        Raises:
            RPCPluginError: It does not, or the client is not running.
            GRPCError: It cannot be asked.
        """
        driver = self._current()
        status = driver.drive(check_health(driver, PLUGIN_SERVICE, timeout=timeout))
        if status is not ServingStatus.SERVING:
            msg = f"the plugin {self.name} says that it is {status.name}"
            raise RPCPluginError(msg, phase="call")

    def _current(self) -> Driver:
        runtime = self._runtime
        if runtime is None:
            msg = f"the client of plugin {self.name} is not running"
            raise RPCPluginError(msg, hint="client.start() first", phase="call")
        return runtime.driver

    # Facts.

    @property
    def name(self) -> str:
        """What the plugin is called in messages and logs."""
        return self._client.name

    @property
    def config(self) -> dict[str, Any]:
        """What was given as `config`."""
        return self._client.config

    @property
    def pid(self) -> int | None:
        """The process number of the plugin; None if none was started."""
        return self._client.pid

    @property
    def exit(self) -> PluginExit | None:
        """How the plugin of the latest start has ended; None while it runs."""
        return self._client.exit

    @property
    def negotiated_version(self) -> int | None:
        """The version of the application's protocol that the plugin chose of those offered."""
        return self._client.negotiated_version

    def statistics(self) -> ClientStatistics:
        """What the client, its calls and its plugins have done so far: a snapshot."""
        client, runtime = self._client, self._runtime
        if runtime is None:
            return client.statistics()
        return runtime.statistics()

    def wait_exited(self, timeout: float | None = None) -> PluginExit | None:
        """Wait until the plugin has ended, for whatever reason.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            How it ended; None for a client that has not been started.

        Raises:
            TimeoutError: It has not ended in time.
        """
        runtime = self._runtime
        if runtime is not None and self._client.exit is None:
            runtime.wait_exited(timeout)
        return self._client.exit

    def __del__(self) -> None:
        runtime: _Runtime | None = getattr(self, "_runtime", None)
        if runtime is None or runtime.process != os.getpid():
            return
        warnings.warn(
            f"the client of plugin {self.name} was forgotten while its plugin was running",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        # A finalizer may run in any thread, the background one included, so it must not wait. As the
        # interpreter ends there are no new threads; then `_stop_all` is what ends the plugin.
        with contextlib.suppress(RuntimeError):
            start_new_thread(runtime.stop, ())


class _Runtime:
    """One start of a plugin, to its end. Knows nothing of the client's handle."""

    def __init__(self, client: RPCPluginClient, backend: str) -> None:
        self.name = client.name
        self.process = os.getpid()
        self._client = client
        self._loop = _loops[backend]
        self._portal: BlockingPortal
        self._first: BlockingSocket | None = None
        self._channel: BlockingChannel | None = None
        self._stopping = threading.Lock()
        self.is_stopping = False
        self._holds_interrupts = False
        self.driver: Driver

    # Its life.

    def start(self) -> None:
        """Start the plugin, connect, and have both looked after; all or nothing."""
        keep_from_children(_threads)
        self._holds_interrupts = interrupts.hold()
        try:
            self._portal = self._loop.__enter__()
            try:
                _Work(self._portal, self._start_in_loop).result()
                if self._channel is not None:
                    self._portal.start_task(self._channel.run)
            except BaseException:
                self._loop.__exit__(None, None, None)
                raise
        except BaseException:
            self._release_interrupts()
            raise
        _running.add(self)

    async def _start_in_loop(self) -> None:
        client = self._client
        await client.start()
        try:
            sock = await self._connect()
            if sock is None:
                self.driver = _Crossing(self._portal, client)
                return
            launch, link = self._launch()
            self._first = sock
            channel = launch.channel
            self._channel = BlockingChannel(
                self._open_socket,
                scheme=link.scheme,
                options=None if channel is None else channel.options,
                on_lost=link.explain_loss,
                interceptors=() if channel is None else channel.interceptors,
            )
            self.driver = cast("Driver", self._channel)
        except BaseException:
            await client.stop()
            raise

    def stop(self) -> None:
        """End the plugin, once; who comes meanwhile waits too. In a forked process, nothing."""
        if self.process != os.getpid():
            return
        self.is_stopping = True
        with self._stopping:
            if self not in _running:
                return
            interruption: BaseException | None = None
            try:
                if self._channel is not None:
                    self._channel.close()
                if self._first is not None:  # There was no call.
                    self._first.close()
                work = _Work(self._portal, self._client.stop)
                while True:
                    try:
                        work.wait()
                        break
                    except KeyboardInterrupt as error:
                        if interruption is not None:
                            self._kill()
                        interruption = error
                self._loop.__exit__(None, None, None)
            finally:
                _running.discard(self)
                self._release_interrupts()
            if interruption is not None:
                raise interruption

    def _release_interrupts(self) -> None:
        if self._holds_interrupts:
            self._holds_interrupts = False
            interrupts.release()

    # What the calls' connection is made of.

    def _open_socket(self, timeout: float | None) -> BlockingSocket:
        first, self._first = self._first, None
        if first is not None:
            return first
        work = _Work(self._portal, functools.partial(self._connect_again, timeout))
        sock: BlockingSocket = work.result()
        return sock

    async def _connect_again(self, seconds: float | None) -> BlockingSocket:
        with anyio.move_on_after(seconds) as scope:
            sock = await self._connect()
            if sock is not None:
                return sock
        if scope.cancelled_caught:
            raise DeadlineExceeded
        raise GRPCError(Status.UNAVAILABLE, "there is no second connection to the plugin")

    async def _connect(self) -> BlockingSocket | None:
        """Make a connection of the calls' own; None where there can be no second one."""
        if not isinstance(self._client._launch, Launch):  # noqa: SLF001 - of the same package
            return None  # Who restarts, reloads and idles has to see the calls.
        _, link = self._launch()
        if link.is_shared:
            return None
        channel = self._client.grpc_channel
        if channel is not None:
            # Only while the plugin can be called at all; otherwise that says why not.
            await channel.wait_connection(None)
        try:
            stream = await link.connect()
        except TransportError:
            ended = await link.explain_loss()
            if ended is not None:
                raise gone_error(ended) from None
            raise
        return blocking_socket(stream)

    def _launch(self) -> tuple[Launch, Link]:
        launch = self._client._launch  # noqa: SLF001 - of the same package
        if not isinstance(launch, Launch) or launch.link is None:
            raise GRPCError(Status.UNAVAILABLE, "the client is not running")
        return launch, launch.link

    def _kill(self) -> None:
        launch = self._client._launch  # noqa: SLF001 - as above
        if launch is not None and launch.process is not None:
            self._portal.start_task_soon(launch.process.runner.kill)

    # Facts.

    def statistics(self) -> ClientStatistics:
        """What was done so far, over both connections; taken where that happens."""
        from pyvider_rpcplugin.client._snapshot import (  # noqa: PLC0415 - only for who asks
            client_statistics,
        )

        async def take() -> ClientStatistics:
            client = self._client
            launch = client._launch  # noqa: SLF001 - of the same package
            channels = [one for one in (client.grpc_channel, self._channel) if one is not None]
            return client_statistics(
                client._lifecycle,  # noqa: SLF001 - as above
                channels,
                () if launch is None else launch.launches,
            )

        work = _Work(self._portal, take)
        result: ClientStatistics = work.result()
        return result

    def wait_exited(self, timeout: float | None) -> None:
        """Wait until the plugin has ended."""

        async def wait() -> None:
            with anyio.fail_after(timeout):
                await self._client.exited.wait()

        _Work(self._portal, wait).result()


class _Work:
    """A coroutine in the background thread, and the thread that waits for it."""

    def __init__(self, portal: BlockingPortal, function: Callable[[], Awaitable[Any]]) -> None:
        self._function = function
        self._done = threading.Event()
        self._future: Future[Any] = portal.start_task_soon(self._run)

    async def _run(self) -> Any:
        try:
            return await self._function()
        finally:
            self._done.set()

    @interruptible
    def wait(self) -> Any:
        """Wait for the result; an interruption leaves the work alone."""
        if interrupts.pending:
            interrupts.deliver()
        return self._future.result()

    def result(self) -> Any:
        """Wait for the result; if that is interrupted, the work is cancelled and cleaned up."""
        try:
            return self.wait()
        except BaseException:
            if not self._future.done():
                self._future.cancel()
                self._done.wait(_GIVE_UP_TIMEOUT)
            raise


class _Crossing:
    """Calls over the connection of the background thread: where there can be no second one.

    Made in that thread.
    """

    def __init__(self, portal: BlockingPortal, client: RPCPluginClient) -> None:
        self._portal = portal
        self._client = client
        self._thread = threading.get_ident()

    def request(self, *args: Any, **options: Any) -> AnyCall:
        """Prepare a call."""
        channel = self._client.grpc_channel
        if channel is None:
            raise GRPCError(Status.UNAVAILABLE, "the client is not running")
        if threading.get_ident() == self._thread:
            return channel.request(*args, **options)
        return self._portal.call(functools.partial(channel.request, *args, **options))

    def prepare(
        self, make: Callable[[Channel, Deadline | None], _StreamT], timeout: float | None
    ) -> _StreamT:
        """Prepare a call in another way: `make` is given the channel and the deadline."""
        channel = self._client.grpc_channel
        if channel is None:
            raise GRPCError(Status.UNAVAILABLE, "the client is not running")

        def prepare() -> _StreamT:
            return make(channel, effective_deadline(timeout, None))

        return self._portal.call(prepare)

    def unary(
        self,
        name: str,
        types: tuple[Any, Any],
        message: Any,
        timeout: float | None,
        metadata: Any,
    ) -> Any:
        """Make the whole of a call with one message each way."""
        options = {"timeout": timeout, "metadata": metadata}
        call = self.request(name, Cardinality.UNARY_UNARY, *types, **options)
        return self.drive(call.unary(message))

    def drive(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine of its calls to its end, waiting."""

        async def run() -> _T:
            return await coroutine

        result: _T = _Work(self._portal, run).result()
        return result

    def forget(self, stream: AnyCall) -> None:
        """Give up a call, from a finalizer."""
        with contextlib.suppress(RuntimeError):
            start_new_thread(self._abandon, (stream,))

    def _abandon(self, stream: AnyCall) -> None:
        with contextlib.suppress(RuntimeError):
            self._portal.call(stream.abandon)


def _stop_all() -> None:
    """End the plugins of clients that nobody stopped, as the interpreter ends."""
    for runtime in list(_running):
        if not runtime.is_stopping:
            warnings.warn(
                f"the plugin {runtime.name} was still running when the program ended: "
                "use `with client:`, or `client.stop()`",
                ResourceWarning,
                stacklevel=1,
            )
        runtime.stop()


class _Threads:
    """The loops' threads, which a forked process has not."""

    def abandon(self) -> None:
        """In a forked process: begin anew."""
        _running.clear()
        _loops.update({name: BlockingPortalProvider(name) for name in _loops})


_threads = _Threads()
atexit.register(_stop_all)
