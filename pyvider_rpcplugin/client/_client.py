"""A host's handle on one plugin."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import anyio
import msgspec

from pyvider_rpcplugin._tasks import Operation, Session
from pyvider_rpcplugin.config import Settings, load_settings
from pyvider_rpcplugin.exception import ConfigError, PluginExit, RPCPluginError
from pyvider_rpcplugin.services import PLUGIN_SERVICE, ServingStatus, apply_log_level, check_health

from ._command import as_program, checked_command, checked_versions, plugin_name
from ._events import EventHub
from ._handle import ChannelHandle
from ._launch import ON_EXIT_LIMIT, Launch, LaunchOptions
from ._lifecycle import Lifecycle
from ._offers import Offers
from ._source import check_source

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
    from types import TracebackType
    from typing import NoReturn, Self

    import grpclib.client

    from pyvider_rpcplugin._tasks import AnyTaskGroup
    from pyvider_rpcplugin.discovery import PluginProgram
    from pyvider_rpcplugin.handshake import ReattachConfig
    from pyvider_rpcplugin.process import ResourceLimits, RunnerFactory, SecureConfig
    from pyvider_rpcplugin.protocol.typed import Service
    from pyvider_rpcplugin.rpc import Channel, Interceptor
    from pyvider_rpcplugin.services import Broker

    from ._events import OnEvent, PluginEvents
    from ._sinks import Deliver, OutputSink
    from ._supervisor import Supervisor
    from .statistics import ClientStatistics
    from .supervision import PoolPolicy, RestartPolicy

T = TypeVar("T")

# What ending a plugin may take beyond the grace of its running calls: all steps of the ladder, and
# the callback after it.
_END_MARGIN = 10.0 + ON_EXIT_LIMIT
_PING_TIMEOUT = 5.0


class RPCPluginClient:
    """Starts a plugin, connects to it, and ends it.

    Usually made by `plugin_client`. Making one does nothing; `async with client:`, or `start` and
    `stop`, do. A client that was stopped can be started again.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]] | PluginProgram | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        inherit_env: bool | Collection[str] = True,
        cwd: str | os.PathLike[str] | None = None,
        stdin: Literal["null", "inherit"] = "null",
        tls: ssl.SSLContext | None = None,
        secure: SecureConfig | None = None,
        limits: ResourceLimits | None = None,
        address: str | None = None,
        reattach: ReattachConfig | Mapping[str, Any] | str | None = None,
        runner: RunnerFactory | None = None,
        sync_stdout: OutputSink | None = None,
        sync_stderr: OutputSink | None = None,
        stderr: OutputSink | None = None,
        on_exit: Callable[[PluginExit], Awaitable[object] | object] | None = None,
        debug: Literal["wait"] | None = None,
        default_deadline: float | None = None,
        interceptors: Iterable[Interceptor] = (),
        restart: RestartPolicy | None = None,
        lazy: bool = False,
        idle_timeout: float | None = None,
        pool: PoolPolicy | None = None,
        on_event: OnEvent | None = None,
        services: Iterable[object] = (),
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Make a client. What is wrong with the arguments, `start` says.

        Args:
            command: The program and its arguments; no shell is used.
            config: Settings for this client, and keys of the application's own.
            env: Variables for the plugin, beside or instead of those that it inherits.
            inherit_env: Whether the plugin inherits this process's environment: True, False, or
                the names of the variables that it does.
            cwd: The folder to start the plugin in.
            stdin: "null", or "inherit" for a plugin that reads from the terminal.
            tls: A context of the caller's own for the connection.
            secure: The checksum of the program; no other one is started.
            limits: What the plugin may use of memory, files, time and processes.
            address: Where a standalone server listens, instead of a command.
            reattach: The record of a plugin that runs already, instead of a command.
            runner: What starts the plugin, or attaches to it.
            sync_stdout: Where what the plugin prints goes.
            sync_stderr: Where what it prints to `sys.stderr` goes; by default into its log.
            stderr: Where what it writes to descriptor 2 goes as it is, beside its log.
            on_exit: Called when the plugin has ended.
            debug: "wait": the plugin waits for a debugger before it serves.
            default_deadline: Seconds that a call may take which has no deadline of its own.
            interceptors: Called before each call of the application's.
            restart: When a plugin that has ended is started again; None: it is not.
            lazy: Start the plugin when it is called for the first time.
            idle_timeout: Seconds without a call after which it is stopped, until the next one.
            pool: How many plugins there are; None: one.
            on_event: Is told what happens to a plugin that is kept running.
            services: What the plugin may call of this host.
            settings: Settings as keywords: lower case, without prefix.
        """
        self.command = command
        self.config: dict[str, Any] = dict(config) if isinstance(config, Mapping) else {}
        self.name: str = plugin_name(command, address, reattach)
        self._address = address
        self._reattach = reattach
        self._runner = runner
        self._on_exit = on_exit
        self._default_deadline = default_deadline
        self._interceptors = interceptors
        self._debug = debug
        self._services = services
        self._offers: Offers | None = None
        self._env = env
        self._inherit_env = inherit_env
        self._cwd = cwd
        self._tls = tls
        self._secure = secure
        self._limits = limits
        self._sync_stdout = sync_stdout
        self._sync_stderr = sync_stderr
        self._stderr = stderr
        self._stdin: Literal["null", "inherit"] = stdin
        self._supervision = (restart, lazy, idle_timeout, pool)
        self._hub = EventHub(on_event)
        self._lifecycle = Lifecycle(self.name)
        self._settings: Settings | None = None
        self._settings_error: ConfigError | None = None
        try:
            self._settings = load_settings(
                config, overrides=settings, defaults=_defaults_of(command), side="host"
            )
        except ConfigError as exc:
            # start() raises it: the documented `try: ... finally: await client.stop()` needs a
            # client to stop.
            self._settings_error = exc
        self._session: Session[None] | None = None
        self._launch: Launch | Supervisor | None = None
        self._owned = False
        self._exited = anyio.Event()

    def __repr__(self) -> str:
        state = "running" if self._running else "not running"
        return f"<RPCPluginClient {self.name} {state}>"

    # Life.

    def start(self, *, task_group: AnyTaskGroup | None = None) -> Operation[Self, Self]:
        """Start the plugin and connect to it.

        `await client.start()` returns when the plugin can be called, and somebody has to call
        `stop`; `async with client.start():` does. Both give the client.

        Args:
            task_group: Where what was started lives, instead of a task of its own: it then ends
                with the task group at the latest. One of anyio's, trio's or asyncio's.

        Raises:
            TransportError: The plugin cannot be started or reached.
            HandshakeError: It did not say how it can be reached, or is not the plugin meant.
            SecurityError: It wants what this client cannot verify.
            ConfigError: A setting, or the command, is wrong.
            RPCPluginError: This client is running.

        Cancellation:
            Ends what was started, within some seconds.
        """
        return Operation(
            "RPCPluginClient.start",
            functools.partial(self._start, task_group),
            functools.partial(self._start_around_block, task_group),
        )

    def stop(self) -> Operation[None, None]:
        """End the plugin and close the connection, whatever state they are in.

        The plugin is asked first, and ended by force if that does not help in time. Stopping a
        client that is not running does nothing. What `on_event` or `on_exit` calls does not wait.

        Cancellation:
            Takes effect when the plugin has ended, within some seconds.
        """
        return Operation("RPCPluginClient.stop", self._stop, self._stop_around_block)

    def close(self) -> Operation[None, None]:
        """The same as `stop`."""
        return Operation("RPCPluginClient.close", self._stop, self._stop_around_block)

    async def __aenter__(self) -> Self:
        return await self._start(None)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    if not TYPE_CHECKING:  # For whoever forgets `async`; a checker says so before.

        def __enter__(self) -> NoReturn:
            msg = (
                "a plugin's client needs `async with`; in a program without an event loop, "
                "`with plugin_client_sync(...)`, of pyvider_rpcplugin.sync"
            )
            raise TypeError(msg)

        def __exit__(self, *_: object) -> None:
            """Be there, as Python looks for it."""

    # Calls.

    @property
    def grpc_channel(self) -> Channel | None:
        """The channel to the plugin: None before the start and after the stop."""
        return self._launch.channel if self._launch is not None else None

    @property
    def broker(self) -> Broker:
        """What makes more connections between this host and its plugin, in both directions.

        Raises:
            RPCPluginError: The client is not running, or the plugin was not started by it.
        """
        self._current_channel()
        broker = self._launch.broker if self._launch is not None else None
        if broker is None:
            msg = f"there is no broker to {self.name}: it was not started by this host"
            raise RPCPluginError(msg, phase="broker")
        return broker

    def stub(
        self,
        stub_class: Callable[[grpclib.client.Channel], T],
        *,
        idempotent: bool | Collection[str] = False,
    ) -> T:
        """Make a stub that calls this plugin.

        It may be made before the start, and it stays good when the client is started again.

        Args:
            stub_class: A generated class, or whatever else is called with a channel.
            idempotent: The names of methods whose calls do no harm when they are made twice; True:
                all. Those with one request are then made again, up to four times within their
                deadlines, when the connection was lost, or the plugin answered UNAVAILABLE, before
                the first reply.

        Raises:
            ConfigError: There is no method of such a name.
        """
        handle: Any = self._handle(idempotent)
        stub = stub_class(handle)
        if idempotent:
            handle.check(stub)
        return stub

    def _handle(self, idempotent: bool | Collection[str]) -> ChannelHandle:
        if not idempotent:
            return ChannelHandle(self._current_channel)
        from ._idempotent import RetryingHandle  # noqa: PLC0415 - few hosts say so

        return RetryingHandle(self._current_channel, idempotent)

    def proxy(
        self,
        interface: Callable[..., T],
        *,
        service_name: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
        idempotent: bool | Collection[str] = False,
    ) -> T:
        """Make an object with the methods of an interface, each of which is a call of this plugin.

        It may be made before the start, and it stays good when the client is started again.

        Args:
            interface: The class that the plugin serves, or a typing.Protocol with its methods.
            service_name: The service's name; by default the interface's.
            timeout: Seconds that each of its calls may take.
            metadata: What is sent along with each.
            idempotent: The names of methods that do no harm when they are called twice; True: all.
                See `stub`.

        Raises:
            ProtocolError: A method of the interface cannot be called from elsewhere.
            ConfigError: There is no method of such a name.
        """
        from pyvider_rpcplugin.protocol.typed import make_proxy  # noqa: PLC0415 - not for stubs

        from ._back import ProxyPeer  # noqa: PLC0415 - likewise

        handle: Any = self._handle(idempotent)
        proxy = make_proxy(
            interface,
            ProxyPeer(handle, self._current_offers),
            service_name=service_name,
            timeout=timeout,
            metadata=metadata,
        )
        if idempotent:
            handle.check(proxy)
        return proxy

    async def check(
        self, interface: Callable[..., object], *, service_name: str | None = None
    ) -> None:
        """Compare an interface with what the plugin serves, to know before its first call.

        Without, a mismatch is the failure of the call that it is about. The caller bounds it.

        Args:
            interface: A class, or a typing.Protocol.
            service_name: The service's name; by default the interface's.

        Raises:
            ProtocolError: The plugin does not serve it so. All differences are named.
            RPCPluginError: The client is not running.
            GRPCError: The plugin cannot be asked.
        """
        from pyvider_rpcplugin.protocol.typed import check  # noqa: PLC0415 - not for stubs

        await check(self._current_channel(), interface, service_name)

    async def describe(self) -> dict[str, Service]:
        """Ask the plugin what its typed services are. The caller bounds it.

        Returns:
            The services by their names: the docstrings and JSON schemas of their methods.

        Raises:
            RPCPluginError: The client is not running.
            GRPCError: The plugin cannot be asked; UNIMPLEMENTED: it has none.
        """
        from pyvider_rpcplugin.protocol.typed import describe_services  # noqa: PLC0415 - likewise

        return await describe_services(self._current_channel())

    async def ping(self, *, timeout: float = _PING_TIMEOUT) -> None:  # noqa: ASYNC109 - as calls have it
        """Ask the plugin's health service whether it serves.

        Args:
            timeout: Seconds that the answer may take.

        Raises:
            RPCPluginError: It does not, or the client is not running.
            GRPCError: It cannot be asked; `DeadlineExceeded` if it does not answer in time.
        """
        status = await check_health(self._current_channel(), PLUGIN_SERVICE, timeout=timeout)
        if status is not ServingStatus.SERVING:
            msg = f"the plugin {self.name} says that it is {status.name}"
            raise RPCPluginError(msg, phase="call")

    def _current_offers(self) -> Offers:
        if self._offers is None:
            self._offers = Offers(self._checked_services())
        return self._offers

    def _current_channel(self) -> Channel:
        channel = self.grpc_channel
        if channel is None:
            msg = f"the client of plugin {self.name} is not running"
            hint = "call it within `async with client:`, or after `await client.start()`"
            raise RPCPluginError(msg, hint, phase="call")
        if self._session is not None:
            self._session.check_loop()
        return channel

    # Leaving it running.

    def reattach_config(self) -> ReattachConfig:
        """Return the record by which another client, or another host, attaches to this plugin.

        Where the connection is encrypted by automatic mutual TLS, a private key is part of the
        record: whoever has it can use the plugin. Certificates of one's own are not part of it.

        Raises:
            RPCPluginError: The client is not running, or its plugin cannot be attached to: it was
                not started by this host, or has one connection for all.
        """
        self._current_channel()
        return self._one_launch().reattach_config()

    def _one_launch(self) -> Launch:
        """The start of a client that makes no others by itself."""
        if not isinstance(self._launch, Launch):
            msg = f"the plugin {self.name} is kept running by this client: it is not handed over"
            raise RPCPluginError(msg, phase="detach")
        return self._launch

    async def detach(self) -> ReattachConfig:
        """Stop, and leave the plugin running.

        Its running calls end with CANCELLED. The plugin goes on until somebody who has attached to
        it stops it, or until it gets a signal. It has to be started with `outlive_host=True`.

        Returns:
            The record by which it is found again, as by `reattach_config`.

        Raises:
            RPCPluginError: It would not go on, or could not be attached to. It runs on as before.

        Cancellation:
            Takes effect when the client has stopped.
        """
        record = self.reattach_config()
        launch = self._one_launch()
        if self._reattach is None and not launch.settings.outlive_host:
            msg = f"the plugin {self.name} would end with its host"
            hint = "Start it with outlive_host=True (PLUGIN_OUTLIVE_HOST)."
            raise RPCPluginError(msg, hint, phase="detach")
        launch.leave()
        await self._stop()
        return record

    # Facts.

    @property
    def exited(self) -> anyio.Event:
        """Set when the plugin of the current start has ended, for whatever reason.

        Also when the start fails. Not when the plugin was left running.
        """
        return self._exited

    async def wait(self) -> PluginExit:
        """Wait until the plugin has ended, by itself or by `stop`.

        Returns:
            How it ended.

        Raises:
            RPCPluginError: No plugin was started, or this client has left it running: its end
                cannot be seen from here.

        Cancellation:
            Safe: the plugin runs on.
        """
        launch = self._launch
        if launch is None:
            exit_ = self._last_exit
        else:
            if self._address is not None:
                msg = f"the end of {self.name} cannot be waited for: it was not started by a host"
                raise RPCPluginError(msg, phase="wait")
            await launch.over.wait()
            exit_ = launch.exit
        if exit_ is None:
            msg = f"the end of plugin {self.name} cannot be seen: it was not started, or was left "
            msg += "running"
            raise RPCPluginError(msg, phase="wait")
        return exit_

    @property
    def exit(self) -> PluginExit | None:
        """How the plugin of the latest start has ended; None while it runs, or if none did."""
        launch = self._launch
        if launch is None:
            return self._last_exit
        if isinstance(launch, Launch) and launch.exit is None and launch.process is not None:
            # A call that was lost may be told before the session has come to its end.
            return launch.process.exit if launch.process.exited.is_set() else None
        return launch.exit

    _last_exit: PluginExit | None = None

    @property
    def id(self) -> str | None:
        """What the plugin is called where it runs: its process number, the name of a container."""
        process = self._launch.process if self._launch is not None else None
        return None if process is None else process.id

    @property
    def pid(self) -> int | None:
        """The process number of the plugin; None if none was started."""
        return self._launch.pid if self._launch is not None else None

    @property
    def pids(self) -> tuple[int, ...]:
        """The process numbers of all plugins that take calls: several, if it is a pool."""
        launch = self._launch
        launches = () if launch is None else launch.launches
        return tuple(one.pid for one in launches if one.pid is not None)

    def statistics(self) -> ClientStatistics:
        """What the client, its calls and its plugins have done so far.

        Returns:
            A snapshot, which does not change. Taking one disturbs nothing.
        """
        from ._snapshot import client_statistics  # noqa: PLC0415 - only for who asks

        launch = self._launch
        channel = self.grpc_channel
        return client_statistics(
            self._lifecycle,
            () if channel is None else (channel,),
            () if launch is None else launch.launches,
        )

    @property
    def negotiated_version(self) -> int | None:
        """The version of the application's protocol that the plugin chose of those offered.

        None while the client is not running, and with a server that it has attached to: only a
        plugin that was started says what it serves.
        """
        launch = self._launch
        return launch.record.app_version if launch is not None and launch.record else None

    @property
    def _running(self) -> bool:
        return self._session is not None and not self._session.finished

    # How it is done.

    async def _start(self, task_group: AnyTaskGroup | None) -> Self:
        self._clear_abandoned()
        if self._running:
            msg = f"the client of plugin {self.name} is running already"
            raise RPCPluginError(msg, hint="stop() it first, or make another one", phase="launch")
        launch = self._new_launch()
        session = Session(
            launch.run,
            name=f"plugin session {self.name}",
            advice="use `async with client:`, or `await client.stop()`",
            limit=launch.settings.grpc_grace_period + _END_MARGIN,
        )
        self._launch, self._session = launch, session
        self._owned = task_group is not None
        if task_group is None:
            session.spawn()
        else:
            session.spawn_in(task_group)
        try:
            await session.wait_started()
        except BaseException:
            self._forget(session)
            raise
        return self

    @property
    def supervised(self) -> bool:
        """Whether the plugin is kept running: restarted, started and stopped by calls, or a pool."""
        return self._supervision != (None, False, None, None)

    def events(self) -> PluginEvents:
        """Make an async iterator over what happens to the plugin from now on.

        It ends when the client has stopped.

        Raises:
            ConfigError: The plugin is not kept running: `exited` and `exit` say all there is.
        """
        if not self.supervised:
            msg = "only a client with restart=, lazy=, idle_timeout= or pool= has events"
            raise ConfigError(msg, phase="settings")
        return self._hub.subscribe()

    async def reload(
        self,
        command: Sequence[str | os.PathLike[str]] | PluginProgram | None = None,
        *,
        drain_timeout: float | None = None,
    ) -> None:
        """Replace the plugin by a new one, without a call that fails.

        The new one is started and asked whether it serves; then new calls go to it, and the old one
        ends when its calls have. A pool's plugins are replaced one after the other. A plugin that
        was given up is started again.

        Args:
            command: What to start instead from now on; None: the same, which may have changed.
            drain_timeout: Seconds that the old one's calls may take; None: as long as they do.

        Raises:
            RPCPluginError: The new one could not be started, or is not healthy: the old one goes on,
                and so does the old command, unless one of a pool has been replaced by then.
            GRPCError: The new one could not be asked whether it is.
            ConfigError: The plugin is not kept running.

        Cancellation:
            The replacement that has begun goes on.
        """
        supervisor = self._launch
        if supervisor is None or isinstance(supervisor, Launch):
            msg = "only a running client with restart=, lazy=, idle_timeout= or pool= can reload"
            raise ConfigError(msg, phase="launch")
        before, new_launch = self.command, None
        try:
            if command is not None:
                self.command = command
                new_launch = self._launcher()
            await supervisor.reload(drain_timeout, new_launch)
        except Exception:
            if supervisor.new_launch is not new_launch:
                self.command = before
            raise

    def _new_launch(self) -> Launch | Supervisor:
        if self._exited.is_set():
            self._exited = anyio.Event()
        new_launch = self._launcher()
        if not self.supervised:
            return new_launch(self._exited)
        from ._plan import Plan  # noqa: PLC0415 - few clients need it
        from ._supervisor import Supervisor  # noqa: PLC0415 - likewise

        if not self._starts:
            msg = "restart=, lazy=, idle_timeout= and pool= are for plugins that are started here"
            raise ConfigError(msg, phase="launch")
        plan = Plan.of(*self._supervision, self._default_deadline)
        settings = cast("Settings", self._settings)
        supervisor = Supervisor(
            self.name, settings, plan, new_launch, self._hub, self._exited, self._lifecycle
        )
        supervisor.channel.interceptors = self._checked_interceptors()
        return supervisor

    def _launcher(self) -> Callable[[anyio.Event], Launch]:
        """Check what was given, and return what prepares a start."""
        if self._settings is None:
            error = self._settings_error or ConfigError("the settings are unknown")
            raise error.with_traceback(None)
        limit = self._default_deadline
        if limit is not None and not limit > 0:
            msg = f"default_deadline is {limit!r}: more than 0 seconds are needed"
            raise ConfigError(msg, phase="settings")
        program = as_program(self.command)
        secure = self._secure or (None if program is None else program.secure)
        if program is not None:
            checked_versions(program, self._settings.protocol_versions)
        check_source(
            command=self.command,
            address=self._address,
            reattach=self._reattach,
            runner=self._runner,
            secure=secure,
            multiplex=self._settings.multiplex_grpc,
            for_a_start={
                "env": self._env,
                "cwd": self._cwd,
                "debug": self._debug,
                "stderr": self._stderr,
            },
        )
        settings = self._settings
        if self._debug is not None:
            settings = msgspec.structs.replace(settings, wait_for_debugger=True)
        stdin: Any = self._stdin
        if stdin not in {"null", "inherit"}:
            msg = f"stdin is {stdin!r}: accepted is 'null' or 'inherit'"
            raise ConfigError(msg, phase="launch")
        env: Any = self.config.get("env") or {}
        if not isinstance(env, Mapping):
            msg = f"config['env'] has to be a mapping of names to values, not {type(env).__name__}"
            raise ConfigError(msg, phase="settings")
        options = LaunchOptions(
            command=None if program or self.command is None else checked_command(self.command),
            program=program,
            address=self._address,
            reattach=self._record(),
            runner=self._runner,
            env={**cast("Mapping[str, str]", env), **(self._env or {})},
            inherit_env=self._inherit_env,
            cwd=self._cwd,
            stdin=self._stdin,
            tls=self._tls,
            secure=_checked_option("secure", secure, started=self._starts),
            limits=_checked_option("limits", self._limits, started=self._starts),
            sync_stdout=self._delivery("sync_stdout", self._sync_stdout),
            sync_stderr=self._delivery("sync_stderr", self._sync_stderr),
            stderr=self._delivery("stderr", self._stderr),
            on_exit=self._on_exit,
            default_deadline=self._default_deadline,
            interceptors=self._checked_interceptors(),
            offers=self._current_offers(),
            lifecycle=self._lifecycle,
        )
        apply_log_level("host")
        return functools.partial(Launch, self.name, settings, options)

    def _checked_interceptors(self) -> tuple[Interceptor, ...]:
        if not self._interceptors:
            return ()
        from ._interceptors import of_the_application  # noqa: PLC0415 - only where there are some

        return of_the_application(self._interceptors)

    @property
    def _starts(self) -> bool:
        """Whether this client starts its plugin."""
        return self._address is None and self._reattach is None

    def _record(self) -> ReattachConfig | None:
        if self._reattach is None:
            return None
        from ._reattach import checked_record  # noqa: PLC0415 - seldom needed

        return checked_record(self._reattach)

    def _checked_services(self) -> list[object]:
        if isinstance(self._services, tuple) and not self._services:
            return []
        from ._back import checked_services  # noqa: PLC0415 - few hosts offer any

        if self._address is not None:
            msg = "services= is for a plugin that is started: a server that is attached to has "
            msg += "no connection back"
            raise ConfigError(msg, phase="settings")
        return checked_services(self._services)

    def _delivery(self, option: str, sink: OutputSink | None) -> Deliver | None:
        if sink is None:
            return None
        if self._address is not None:
            msg = f"{option} needs a command: a standalone server keeps what it prints"
            raise ConfigError(msg, phase="settings")
        from ._sinks import delivery  # noqa: PLC0415 - most hosts have none

        return delivery(sink, option)

    async def _stop(self) -> None:
        self._clear_abandoned()
        session = self._session
        if session is None:
            return
        session.check_loop()
        session.request_stop()
        if session.calls_this:
            return  # It ends when the function that calls this has returned.
        try:
            await session.wait_finished()
        finally:
            self._forget(session)

    def _clear_abandoned(self) -> None:
        """End what a loop that was closed too early has left running."""
        session, launch = self._session, self._launch
        if session is None or launch is None or not session.abandoned:
            return
        warnings.warn(
            f"the event loop was closed while the plugin {self.name} was running",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        launch.abandon()
        self._exited = anyio.Event()  # The old one belongs to the loop that is no more.
        self._forget(session)

    def _forget(self, session: Session[None]) -> None:
        """Be a client that is not running, unless it has been started again meanwhile."""
        if self._session is session:
            self._last_exit = self.exit
            self._session = self._launch = None

    @contextlib.asynccontextmanager
    async def _start_around_block(self, task_group: AnyTaskGroup | None) -> AsyncGenerator[Self]:
        await self._start(task_group)
        try:
            yield self
        finally:
            await self._stop()

    @contextlib.asynccontextmanager
    async def _stop_around_block(self) -> AsyncGenerator[None]:
        if self._session is not None:
            self._session.request_stop()
        try:
            yield
        finally:
            await self._stop()

    def __del__(self) -> None:
        # What was started does not refer to this object, so it can be missed while it runs.
        session: Session[None] | None = getattr(self, "_session", None)
        if session is None or session.finished or self._owned:
            return
        if session.abandoned:
            self._clear_abandoned()
            return
        warnings.warn(
            f"the client of plugin {self.name} was forgotten while its plugin was running",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
        session.request_stop_from_anywhere()


def _defaults_of(command: object) -> dict[str, object]:
    """What a plugin's program says of itself, in place of the defaults of settings."""
    program = as_program(command)
    if program is None or not program.protocol_versions:
        return {}
    return {"protocol_versions": program.protocol_versions}


def _checked_option(name: Literal["secure", "limits"], value: object, *, started: bool) -> Any:
    """Return an option that needs a process of ours."""
    if value is None:
        return None
    from pyvider_rpcplugin import process  # noqa: PLC0415 - few need what this loads

    kind = process.SecureConfig if name == "secure" else process.ResourceLimits
    if not isinstance(value, kind):
        msg = f"{name}= takes a {kind.__name__}, not {type(value).__name__}"
        raise ConfigError(msg, phase="settings")
    if not started:
        msg = f"{name}= is for a plugin that is started, not for a server that is attached to"
        raise ConfigError(msg, phase="launch")
    return value
