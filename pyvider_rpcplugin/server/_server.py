"""A plugin's server: from the cookie to the handshake line, through the calls, to a clean end."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import msgspec

from pyvider_rpcplugin._collector import collection_put_off
from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._tasks import Operation, Session, unwrapped
from pyvider_rpcplugin.config import Settings, level_number, load_settings
from pyvider_rpcplugin.crypto import plugin_tls
from pyvider_rpcplugin.exception import (
    ConfigError,
    HandshakeError,
    ProtocolError,
    RPCPluginError,
    TransportError,
)
from pyvider_rpcplugin.handshake import (
    HandshakeRecord,
    check_cookie,
    choose_version,
    format_handshake_line,
)
from pyvider_rpcplugin.protocol import RPCPluginProtocol, register, services_by_version
from pyvider_rpcplugin.rpc import Server
from pyvider_rpcplugin.services import (
    ControllerService,
    HealthService,
    ReflectionService,
    apply_log_level,
    current_broker,
    current_version,
    plugin_broker,
    rpc_options,
)

from ._ending import checked_callbacks, drain
from ._host import outlive_host, wait_for_host_to_end
from ._inherited import take_inherited
from ._listen import Place, listening
from ._logging import log_crash, logging_to_host
from ._offer import HostOffers
from ._signals import Arrivals, caught_signals
from ._stdio import CapturedOutput
from ._stdout import guarded_stdout, write_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable, Iterable
    from types import FrameType
    from typing import Literal

    from anyio.abc import TaskStatus

    from pyvider_rpcplugin.crypto import Credentials
    from pyvider_rpcplugin.handshake import ReattachConfig
    from pyvider_rpcplugin.services import Broker
    from pyvider_rpcplugin.transport import RPCPluginTransport, StreamListener

    from ._debug import DebugServe
    from .statistics import PluginServerStatistics

logger = event_logger(__name__)

# How often the file that asks for the end is looked for. There is no portable way to be told.
_SHUTDOWN_FILE_INTERVAL = 0.25
# What the end of a session may take beyond the grace that running calls get.
_END_MARGIN = 10.0
_LAST_WORDS_TIMEOUT = 1.0


class _TaskStatus(Protocol):
    """What both anyio and trio hand to a task that they start."""

    def started(self, value: Any = None, /) -> None: ...


class RPCPluginServer:
    """Serves a handler: to the host that started this process, or on its own.

    Usually made by `plugin_server`. Making one does nothing but read the settings; `serve` (or
    `run`, in a program that is nothing but a plugin) does the rest. It can serve several times,
    one after the other, and inside of larger programs.
    """

    def __init__(
        self,
        protocol: RPCPluginProtocol | Mapping[int, Any] | None = None,
        handler: Any = None,
        config: Mapping[str, Any] | None = None,
        transport: str | RPCPluginTransport | None = None,
        *,
        versions: Mapping[int, Any] | None = None,
        host: str | None = None,
        port: int | None = None,
        transport_path: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        standalone: bool = False,
        interceptors: Iterable[Any] = (),
        on_shutdown: Callable[[], object] | Iterable[Callable[[], object]] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Make a server.

        Args:
            protocol: What registers the handler; None if the handler says what it serves; a
                mapping for several versions.
            handler: The user's handler.
            config: Settings for this server, and keys of the application's own.
            transport: "unix", "tcp", or a transport; by default what the settings say.
            versions: What each version of the application's protocol serves.
            host: The address to bind with tcp.
            port: The port to bind with tcp; 0: any.
            transport_path: The path of the socket.
            tls: A context of the caller's own for all connections.
            standalone: Serve without a host: no cookie is asked for, and no line is printed.
            interceptors: Called before each call of the handler; see `plugin_server`.
            on_shutdown: Whom to tell when the end begins; see `plugin_server`.
            settings: Settings as keywords: lower case, without prefix.

        Raises:
            ProtocolError: The mapping of versions is none.
            ConfigError: `on_shutdown` is nothing that can be called.
        """
        self.protocol = protocol
        self.handler = handler
        self.config: dict[str, Any] = dict(config) if isinstance(config, Mapping) else {}
        self.standalone = standalone
        self._versions = services_by_version(protocol, handler, versions)
        if self._versions is not None and (
            "protocol_versions" in (settings or {}) or "PLUGIN_PROTOCOL_VERSIONS" in self.config
        ):
            msg = "PLUGIN_PROTOCOL_VERSIONS is for one protocol: here a mapping says the versions"
            raise ProtocolError(msg, hint="leave it out", phase="serve")
        self._interceptors = tuple(interceptors)
        self._on_shutdown = checked_callbacks(on_shutdown)
        self._tls = tls
        self._place = Place(
            transport,
            host,
            port or None,
            None if transport_path is None else os.fspath(transport_path),
        )
        self._settings: Settings | None = None
        self._settings_error: ConfigError | None = None
        try:
            self._settings = load_settings(config, overrides=settings, side="plugin")
        except ConfigError as exc:
            # serve() raises it: a wrong variable should not break a program at its import.
            self._settings_error = exc
        self._health = HealthService()
        self._rpc: Server | None = None
        self._started_at: float | None = None
        self._session: Session[str] | None = None
        self._grace: float | None = None
        self._address: str | None = None
        self._network: Any = None
        self._negotiated_version: int | None = None
        self._hosted = not standalone

    def __repr__(self) -> str:
        return f"<RPCPluginServer {self._address or 'not listening'}>"

    @property
    def health(self) -> HealthService:
        """What the health service says of this server; `health.set_status` changes it."""
        return self._health

    @property
    def negotiated_version(self) -> int | None:
        """The version of the application's protocol that is served; None before `serve`.

        It is the highest that the host offers too. A standalone server has its newest.
        """
        return self._negotiated_version

    def statistics(self) -> PluginServerStatistics:
        """What has been served so far, since it began to serve: a snapshot, which does not change.

        Calls of the handler count, and those of methods that are not there.
        """
        from .statistics import PluginServerStatistics  # noqa: PLC0415 - only for who asks

        facts: dict[str, Any] = {}
        if self._rpc is not None:
            facts = msgspec.structs.asdict(self._rpc.statistics())
        return PluginServerStatistics(
            address=self._address,
            pid=os.getpid(),
            started_at=self._started_at,
            version=self._negotiated_version,
            **facts,
        )

    def get_address(self) -> str:
        """Return where the server listens: "host:port", or the path of its socket.

        Raises:
            TransportError: It does not listen.
        """
        if self._address is None:
            msg = "the server has no address: it does not listen"
            raise TransportError(msg, hint="it listens while serve() runs", phase="serve")
        return self._address

    def reattach_config(self) -> ReattachConfig:
        """Return by what a host attaches to this server: one that serves without a host.

        Raises:
            TransportError: It does not listen.
            RPCPluginError: It has a host, which has the record: `client.reattach_config()`.
        """
        address = self.get_address()
        if self._hosted:
            msg = "the record of a plugin that was started by a host is the host's to give"
            raise RPCPluginError(msg, hint="client.reattach_config() gives it", phase="attach")
        from pyvider_rpcplugin.handshake import ReattachConfig  # noqa: PLC0415 - hardly ever used

        return ReattachConfig(
            network=self._network,
            address=address,
            pid=os.getpid(),
            protocol_version=self._negotiated_version or 0,
            test=True,
        )

    def serve(
        self, *, debug: bool = False, task_status: _TaskStatus | None = None
    ) -> Operation[None, str]:
        """Serve until stopped: by `stop`, SIGTERM, the host's request, or the host's end.

        `await server.serve()` serves here and now. `async with server.serve() as address:` serves
        while the block runs, and `address = await task_group.start(server.serve)` until the task
        group ends it; both go on once the server listens.

        Args:
            debug: Serve what a host would be served, without one: hosts attach to it by what
                `reattach_config` returns, and leave it running. Neither is a cookie asked for nor
                a line printed, and the plugin's output stays its own.
            task_status: Given by task groups.

        Raises:
            HandshakeError: No host started this process.
            ProtocolError: There is nothing to serve.
            TransportError: There is no way to listen.
            ConfigError: A setting is wrong.

        Cancellation:
            Ends it at once: calls that run are cancelled, files are removed.
        """
        return Operation(
            "RPCPluginServer.serve",
            functools.partial(self._serve_here, task_status, debug),
            functools.partial(self._serve_around_block, debug),
        )

    def stop(self, grace_period: float | None = None) -> Operation[None, None]:
        """Stop serving. New calls are refused, those that run may finish.

        `await server.stop()` returns when all has ended; `async with server.stop():` runs a block
        meanwhile. Stopping a server that does not serve does nothing.

        Args:
            grace_period: Seconds that running calls get before they are cancelled; by default
                PLUGIN_GRPC_GRACE_PERIOD.

        Cancellation:
            Safe: the server goes on stopping.
        """
        return Operation(
            "RPCPluginServer.stop",
            functools.partial(self._stop, grace_period),
            functools.partial(self._stop_around_block, grace_period),
        )

    def run(
        self,
        backend: Literal["asyncio", "trio"] = "asyncio",
        *,
        debug: bool | str | None = None,
        use_uvloop: bool = False,
        **backend_options: Any,
    ) -> None:
        """Serve, as the one thing that this program does.

        Started by hand, a plugin cannot serve: then this says so on stderr and exits with
        status 1. So does whatever else keeps it from serving.

        Started by hand with the argument `--debug`, it serves until Ctrl-C, and prints by what
        hosts attach to it; see `serve`. With `--debug=NAME`, that has the form of Terraform's
        variable TF_REATTACH_PROVIDERS, where NAME is the provider's address. With `--socket PATH`
        beside it, it listens there. All other arguments are the program's own. Where a host
        started the program, so are these.

        What is logged meanwhile goes to the host, unless the program has set up logging itself.
        So does, as one record, the exception that ends the serving.

        While the modules of the event loop are loaded, automatic garbage collection is off: it
        would find nothing, and users wait for it. Before anything is served it is as it was.

        Args:
            backend: The event loop: "asyncio" or "trio".
            debug: What those arguments say, for a program that reads its arguments itself: True,
                or the name; False for a program that is not to be debugged in this way.
            use_uvloop: Run uvloop, which has to be installed, in the place of asyncio's own loop.
            backend_options: What else `anyio.run` takes as backend_options.

        Raises:
            SystemExit: With status 1.
        """
        level = level_number("INFO" if self._settings is None else self._settings.log_level)
        try:
            asked = self._asked_to_debug(debug)
            if asked is None:
                self._wait_for_debugger()
            with _program_logging(level, self.standalone, asked), collection_put_off() as loaded:
                if use_uvloop:
                    from ._uvloop import uvloop_options  # noqa: PLC0415 - few programs ask for it

                    backend_options |= uvloop_options(backend)
                try:
                    anyio.run(
                        self._serve_as_program,
                        asked,
                        loaded,
                        backend=backend,
                        backend_options=backend_options,
                    )
                except RPCPluginError:
                    raise
                except Exception as exc:
                    if self.standalone or asked is not None:
                        raise
                    log_crash(exc)
                    raise SystemExit(1) from None
        except RPCPluginError as exc:
            self._notice_import(exc, sys._getframe(1))  # noqa: SLF001 - that is how
            sys.stderr.write(f"{exc}\n")
            raise SystemExit(1) from None

    def _notice_import(self, error: RPCPluginError, caller: FrameType) -> None:
        """Say more where a module calls `run` while it is imported, as by its own host."""
        module = caller.f_globals.get("__name__")
        settings = self._settings
        if (
            isinstance(error, HandshakeError)
            and settings is not None
            and settings.magic_cookie_key not in os.environ
            and caller.f_code.co_name == "<module>"
            and module != "__main__"
        ):
            error.hint = (
                f"The module {module} calls run() while it is imported: put that below "
                'if __name__ == "__main__":'
            )

    def _wait_for_debugger(self) -> None:
        """Wait for one if this program's host wants that."""
        settings = self._settings
        if settings is None or not settings.wait_for_debugger or self.standalone:
            return
        check_cookie(settings, os.environ)
        from ._debugger import wait_for_debugger  # noqa: PLC0415 - seldom needed

        wait_for_debugger()

    def _asked_to_debug(self, debug: bool | str | None) -> DebugServe | None:
        if self.standalone or debug is False:
            return None
        if debug is None:
            settings = self._settings
            hosted = settings is None or settings.magic_cookie_key in os.environ
            if hosted or not any(word.startswith("--debug") for word in sys.argv[1:]):
                return None
        from ._debug import DebugServe, from_arguments  # noqa: PLC0415 - not for hosts

        if debug is None:
            return from_arguments(sys.argv[1:])
        return DebugServe(None if debug is True else debug)

    # Where the session runs.

    async def _serve_here(self, task_status: _TaskStatus | None, debug: bool) -> None:
        await self._new_session(debug, task_status=task_status).run()

    async def _serve_as_program(self, asked: DebugServe | None, loaded: Callable[[], None]) -> None:
        loaded()
        if asked is None:
            await self._new_session(is_program=True).run()
            return
        from ._debug import Announcement  # noqa: PLC0415 - not for hosts

        if asked.socket is not None:
            self._place = Place("unix", None, None, asked.socket)
        told = Announcement(self.reattach_config, asked.name)
        await self._new_session(True, task_status=told, is_program=True).run()

    @contextlib.asynccontextmanager
    async def _serve_around_block(self, debug: bool) -> AsyncGenerator[str]:
        session = self._new_session(debug)
        session.spawn()
        address = await session.wait_started()
        try:
            yield address
        finally:
            session.request_stop()
            await session.wait_finished()
        if session.failure is not None:
            raise session.failure

    async def _stop(self, grace: float | None) -> None:
        session = self._request_stop(grace)
        if session is not None:
            await session.join()

    @contextlib.asynccontextmanager
    async def _stop_around_block(self, grace: float | None) -> AsyncGenerator[None]:
        session = self._request_stop(grace)
        yield
        if session is not None:
            await session.join()

    def _request_stop(self, grace: float | None) -> Session[str] | None:
        session = self._session
        if session is not None and not session.finished:
            session.check_loop()
            if grace is not None and not session.stop_requested.is_set():
                self._grace = grace
                session.limit = grace + _END_MARGIN
            session.request_stop()
        return session

    def _new_session(
        self,
        debug: bool = False,
        *,
        task_status: _TaskStatus | None = None,
        is_program: bool = False,
    ) -> Session[str]:
        if self._session is not None and not self._session.finished:
            msg = "this server serves already"
            raise RPCPluginError(msg, hint="stop() it first, or make another one", phase="serve")
        if self._settings is None:
            error = self._settings_error or ConfigError("the settings are unknown")
            raise error.with_traceback(None)
        self._grace = None
        self._hosted = not (self.standalone or debug)
        self._session = Session(
            functools.partial(
                self._body,
                self._settings,
                debug=debug and not self.standalone,
                task_status=task_status,
                is_program=is_program,
            ),
            name="plugin server session",
            advice="use `async with server.serve():`, or `await server.stop()`",
            limit=self._settings.grpc_grace_period + _END_MARGIN,
        )
        return self._session

    # The session.

    async def _body(
        self,
        settings: Settings,
        session: Session[str],
        *,
        debug: bool,
        task_status: _TaskStatus | None,
        is_program: bool,
    ) -> None:
        """Serve; the whole of it."""
        hosted = self._hosted
        if hosted:
            check_cookie(settings, os.environ)
            # The process is the plugin's: so is the logger.
            logging.getLogger("pyvider_rpcplugin").setLevel(level_number(settings.log_level))
        else:
            apply_log_level("plugin")
        if debug and settings.auto_mtls is True:
            # It is for those that are told; to warn of it would only be in their way.
            settings = msgspec.structs.replace(settings, auto_mtls=False)
        handed = take_inherited(os.environ) if hosted else None
        tls = plugin_tls(settings, self._tls, standalone=not hosted, handed=handed)
        options = rpc_options(settings)
        self._rpc = rpc = Server(options=options)
        # A host shows them to who has started both. Anybody may call a server that stands alone.
        rpc.shows_tracebacks = not self.standalone
        version = self._choose_version(settings)
        served = (self._versions or {}).get(version, (self.protocol, self.handler))
        await register(rpc, *served)
        if self._interceptors or settings.rate_limit_enabled:
            rpc.intercept([*_rate_limits(settings), *self._interceptors])
        self._health.start(_public(rpc))
        printed = CapturedOutput()
        self._add_own_services(rpc, settings, session, printed)
        with contextlib.ExitStack() as process_wide:
            process_wide.callback(current_version.reset, current_version.set(version))
            arrivals = _catch_signals(process_wide, hosted, settings, is_program)
            stdout = None
            if hosted and _in_main_thread():
                stdout = process_wide.enter_context(guarded_stdout())
                process_wide.enter_context(printed)
            async with listening(self._place, settings) as (network, plain):
                shared = None
                if settings.multiplex_wanted and hosted:
                    shared = _Shared(plain, tls.credentials, settings)
                listener = _secured(
                    plain if shared is None else shared.streams, tls.credentials, settings
                )
                self._network = network
                self._address, self._negotiated_version = listener.address, version
                broker = None
                if not self.standalone:
                    broker = plugin_broker(
                        network,
                        listener.address,
                        settings,
                        tls.credentials,
                        None if shared is None else shared.ways,
                    )
                    rpc.add_service(broker, vital=True)
                    HostOffers(broker, rpc)
                try:
                    await self._accept(
                        rpc,
                        broker,
                        shared,
                        settings,
                        session,
                        listener,
                        functools.partial(
                            self._greet, settings, version, network, tls.certificate, stdout
                        ),
                        stdout,
                        printed,
                        arrivals,
                        task_status,
                    )
                finally:
                    self._address = self._negotiated_version = None

    def _add_own_services(
        self, rpc: Server, settings: Settings, session: Session[str], printed: CapturedOutput
    ) -> None:
        application = set(rpc.methods)
        if settings.health_service_enabled:
            rpc.add_service(self._health)
            rpc.admission.vital.add(self._health.check_method)
        if settings.reflection_enabled:
            reflection = ReflectionService(lambda: _public(rpc), lambda: _described(rpc))
            rpc.add_service(reflection)
            rpc.standing.update(reflection.methods)
        if self._hosted:
            # Whoever can connect may use it. Without a host that would be anybody.
            rpc.add_service(ControllerService(printed.flush, session.request_stop), vital=True)
        own = {path for path in rpc.methods if path.startswith("/pyvider.rpcplugin.")}
        rpc.admission.apart |= own | (rpc.methods.keys() - application)
        if not self.standalone:
            rpc.add_service(printed.service, vital=True)
            rpc.standing.update(printed.service.methods)

    async def _accept(
        self,
        rpc: Server,
        broker: Broker | None,
        shared: _Shared | None,
        settings: Settings,
        session: Session[str],
        listener: StreamListener,
        greet: Callable[[str], None],
        stdout: int | None,
        printed: CapturedOutput,
        arrivals: Arrivals | None,
        task_status: _TaskStatus | None,
    ) -> None:
        with unwrapped():
            async with anyio.create_task_group() as tg:
                if broker is not None:
                    await tg.start(broker.run)
                await tg.start(_serve_calls, rpc, listener, broker)
                if shared is not None:
                    tg.start_soon(shared.run, session)
                if arrivals is not None:
                    tg.start_soon(_stop_at_signal, arrivals, session)
                if settings.shutdown_file_path:
                    tg.start_soon(_stop_at_file, settings.shutdown_file_path, session)
                if self._hosted:
                    greet(listener.address)
                    if stdout is not None:
                        if settings.outlive_host:
                            tg.start_soon(outlive_host, stdout, printed.add)
                        else:
                            tg.start_soon(_stop_with_host, stdout, session)
                        printed.begin()
                try:
                    logger.debug("server.listening address=%s", listener.address)
                    self._started_at = time.time()
                    session.started(listener.address)
                    if task_status is not None:
                        task_status.started(listener.address)
                    await session.stop_requested.wait()
                    self._health.stop()
                    # Whoever connects from now on is refused, and not left waiting for an answer.
                    await listener.aclose()
                    if broker is not None:
                        tg.start_soon(broker.stop, "is closing: the plugin stops")
                    grace = settings.grpc_grace_period if self._grace is None else self._grace
                    await drain(rpc, grace, self._on_shutdown, printed.finish)
                    if shared is not None:
                        await shared.flush()
                finally:
                    printed.end()
                tg.cancel_scope.cancel()

    def _choose_version(self, settings: Settings) -> int:
        mine = settings.protocol_versions if self._versions is None else self._versions
        # Without a host, whoever serves for debugging may still say which.
        if self.standalone or not (self._hosted or settings.offered_versions):
            return max(mine)
        return choose_version(mine, settings.offered_versions)

    def _greet(
        self,
        settings: Settings,
        version: int,
        network: Any,
        certificate: bytes | None,
        stdout: int | None,
        address: str,
    ) -> None:
        """Tell the host where to connect."""
        record = HandshakeRecord(
            core_version=settings.core_version,
            app_version=version,
            network=network,
            address=address,
            certificate=certificate,
            multiplex=settings.multiplex_wanted if settings.multiplex_requested else None,
        )
        write_line(1 if stdout is None else stdout, format_handshake_line(record))


def _rate_limits(settings: Settings) -> list[Any]:
    if not settings.rate_limit_enabled:
        return []
    from pyvider_rpcplugin.services.limits import RateLimit  # noqa: PLC0415 - few servers have one

    limit = RateLimit(settings.rate_limit_requests_per_second, settings.rate_limit_burst_capacity)
    return [limit]


class _Shared:
    """The one connection of a host that wants all to go over one, and the streams on it."""

    def __init__(
        self, listener: StreamListener, credentials: Credentials | None, settings: Settings
    ) -> None:
        from pyvider_rpcplugin.services import SharedWays  # noqa: PLC0415 - hardly ever needed
        from pyvider_rpcplugin.transport.multiplex import (  # noqa: PLC0415 - likewise
            MultiplexedListener,
        )

        self.streams = MultiplexedListener(listener.address)
        self.ways = SharedWays(
            client=False,
            credentials=credentials,
            handshake_timeout=settings.connection_timeout,
            default=self.streams,
        )
        self._listener = listener

    async def run(self, session: Session[str]) -> None:
        """Take the one connection; its end is the end of the plugin, which nobody can reach."""
        stream = await self._listener.accept()
        await self._listener.aclose()
        await self.ways.run(stream)
        logger.debug("server.stopping reason=connection-lost")
        session.request_stop()

    async def flush(self) -> None:
        """Let last answers leave, for as long as the host reads them."""
        with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
            await self.ways.flush()


def _public(rpc: Server) -> list[str]:
    """The services that are for others, too, and not only for hosts of this library."""
    return [name for name in rpc.services if not name.startswith("pyvider.rpcplugin.")]


def _described(rpc: Server) -> list[Any]:
    """The descriptors of services that know them without a generated module."""
    services = {getattr(handler, "service", None) for handler in rpc.methods.values()}
    return [pool for service in services if service for pool in service.descriptor_pools()]


async def _serve_calls(
    rpc: Server, listener: StreamListener, broker: Broker | None, *, task_status: TaskStatus[None]
) -> None:
    """Serve, and let handlers find the broker."""
    current_broker.set(broker)
    await rpc.serve(listener, task_status=task_status)


def _secured(
    listener: StreamListener, credentials: Credentials | None, settings: Settings
) -> StreamListener:
    """The listener whose connections are encrypted, and whose clients are known."""
    if credentials is None:
        return listener
    from pyvider_rpcplugin.transport._tls import TLSListener  # noqa: PLC0415 - loads ssl

    return TLSListener(listener, credentials, handshake_timeout=settings.connection_timeout)


def _program_logging(
    level: int, standalone: bool, asked: DebugServe | None
) -> contextlib.AbstractContextManager[None]:
    """What a program's log goes to, if it has not decided itself."""
    if standalone:
        return contextlib.nullcontext()
    if asked is None:
        return logging_to_host(level)
    from ._debug import logging_to_terminal  # noqa: PLC0415 - not for hosts

    return logging_to_terminal(level)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _catch_signals(
    stack: contextlib.ExitStack, hosted: bool, settings: Settings, is_program: bool
) -> Arrivals | None:
    """Catch the signals that mean something to this process, if it is ours to do so."""
    if not (hosted or is_program) or not _in_main_thread():
        return None
    wanted: list[int] = [signal.SIGTERM]
    ignored: list[int] = []
    # Of Ctrl-C at a terminal all processes are told, and the host decides what its plugins do.
    (ignored if hosted and settings.ignore_sigint else wanted).append(signal.SIGINT)
    return stack.enter_context(caught_signals(wanted, ignored))


async def _stop_at_signal(arrivals: Arrivals, session: Session[str]) -> None:
    number = await arrivals.wait()
    logger.debug("server.stopping signal=%d", number)
    session.request_stop()


async def _stop_with_host(stdout: int, session: Session[str]) -> None:
    await wait_for_host_to_end(stdout)
    logger.debug("server.stopping reason=host-ended")
    session.request_stop()


async def _stop_at_file(path: str, session: Session[str]) -> None:
    file = anyio.Path(path)
    while not await file.is_file():  # noqa: ASYNC110 - another program makes the file
        await anyio.sleep(_SHUTDOWN_FILE_INTERVAL)
    with contextlib.suppress(OSError):
        await file.unlink()
    logger.debug("server.stopping file=%s", path)
    session.request_stop()
