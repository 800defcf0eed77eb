"""What a client's session does: start the plugin, connect, watch over both, and end both."""

from __future__ import annotations

import codecs
import contextlib
import functools
import importlib
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import handshake
from pyvider_rpcplugin._tasks import Session, first, unwrapped
from pyvider_rpcplugin.crypto import Mode, host_tls
from pyvider_rpcplugin.exception import (
    HandshakeError,
    PluginExit,
    RPCPluginError,
    SecurityError,
    TransportError,
)
from pyvider_rpcplugin.process import (
    Checked,
    PluginProcess,
    RunSpec,
    checked,
    subprocess_runner,
    supervised,
)
from pyvider_rpcplugin.services import request_shutdown, rpc_options

from ._command import server_name, transport_at
from ._errors import complete, failure, with_last_words
from ._folder import remove_dead_socket, socket_folder
from ._log import LineLog, OutputLog, PluginLog
from ._starts import Retries, turn_to_start

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import ByteStream, TaskGroup, TaskStatus

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import Credentials, HostTLS
    from pyvider_rpcplugin.discovery import PluginProgram
    from pyvider_rpcplugin.handshake import HandshakeReader, HandshakeRecord, ReattachConfig
    from pyvider_rpcplugin.process import (
        AttachedRunner,
        ResourceLimits,
        Runner,
        SecureConfig,
    )
    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.services import Broker, SharedWays
    from pyvider_rpcplugin.transport import RPCPluginTransport

    from ._lifecycle import Lifecycle
    from ._offers import Offers
    from ._relay import OutputRelay
    from ._sinks import Deliver

# A lost connection mostly means that the plugin has died: so long is waited for its exit status.
EXIT_GRACE = 0.25
# How long its calls may take to notice. Longer than the channel gives a connection that something
# which the plugin left behind holds open.
_LOSS_GRACE = 1.0
# What the plugin may take to end beyond the grace that its running calls get.
_END_MARGIN = 1.0
# What a runner may take to say why nothing has started.
_DIAGNOSIS_LIMIT = 1.0
# What a callback at the end may take: whoever stops the plugin waits for it.
ON_EXIT_LIMIT = 5.0


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a plugin is started, or where a running one is found."""

    command: list[str] | None
    program: PluginProgram | None
    address: str | None
    reattach: ReattachConfig | None
    # Any: which of the two kinds it is, only the rest of the options tells.
    runner: Callable[[Any], AbstractAsyncContextManager[Any]] | None
    env: Mapping[str, str] | None
    inherit_env: bool | Collection[str]
    cwd: str | os.PathLike[str] | None
    stdin: Literal["null", "inherit"]
    tls: ssl.SSLContext | None
    secure: SecureConfig | None
    limits: ResourceLimits | None
    sync_stdout: Deliver | None
    sync_stderr: Deliver | None
    stderr: Deliver | None
    offers: Offers
    lifecycle: Lifecycle
    on_exit: Callable[[PluginExit], Awaitable[object] | object] | None
    default_deadline: float | None
    interceptors: tuple[Callable[[Any], Any], ...]

    def __repr__(self) -> str:
        # What a caller gives to a plugin may be secret.
        return f"LaunchOptions(command={self.command!r}, address={self.address!r})"


class Launch:
    """One start of a plugin, to its end. Knows nothing of the client, which may be forgotten.

    Attributes:
        channel: What calls go through, as soon as it is up.
        broker: What makes more connections, at the same time.
        exit: How the plugin has ended, once it has.
        exited: Set at the same time; also if it never was up. Not if it was left running.
        over: Set when this start has come to its end, whatever became of the plugin.
        left: Whether the plugin was left running.
        started_at: When it came up, as `time.time` has it.
        start_seconds: How long that took.
    """

    def __init__(
        self, name: str, settings: Settings, options: LaunchOptions, exited: anyio.Event
    ) -> None:
        self.name = name
        self.settings = settings
        self.channel: Channel | None = None
        self.broker: Broker | None = None
        self.record: HandshakeRecord | None = None
        self.pid: int | None = None
        self.exit: PluginExit | None = None
        self.exited = exited
        self.over = anyio.Event()
        self.left = False
        self.process: PluginProcess | None = None
        self.link: Link | None = None
        self._tls: HostTLS | None = None
        self._options = options
        self._may_pass = False
        level = settings.log_level
        if settings.wait_for_debugger and level in {"ERROR", "CRITICAL"}:
            level = "WARNING"  # How to attach the debugger has to be seen.
        self._log = PluginLog(name, level)
        self._life = options.lifecycle
        self._life.log = self._log
        self._began = 0.0
        self.started_at: float | None = None
        self.start_seconds: float | None = None
        self._exit_told = False
        self._after_line = b""

    def abandon(self) -> None:
        """End the process without an event loop: its own was closed under it. It blocks a moment."""
        if self.process is not None and self.exit is None and not self.left:
            self.process.abandon()
            self.exit = self.process.exit

    @property
    def default_deadline(self) -> float | None:
        """Seconds that a call may take which has no deadline of its own."""
        return self._options.default_deadline

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Itself: see `Supervisor`."""
        return (self,)

    async def run(self, session: Session[None]) -> None:
        """Be the session: start, again if that may help, and stay until the plugin has ended."""
        try:
            await self._run(session)
        finally:
            if not (self.left and session.up):
                self.exited.set()
            self.over.set()
            if session.up and not self._exit_told:
                self._tell_end()
            if session.up and self.exit is not None and self._options.on_exit is not None:
                with session.calling():
                    await self._tell(self._options.on_exit, self.exit)

    async def _run(self, session: Session[None]) -> None:
        retries = Retries(self.settings)
        while True:
            self._may_pass = False
            self.record = self.exit = None
            self._began = anyio.current_time()
            try:
                if self._options.reattach is not None:
                    await self._reattach(session, self._options.reattach, retries)
                elif self._options.address is not None:
                    await self._attach(session, self._options.address, retries)
                else:
                    await self._launch(session, retries)
            except RPCPluginError as exc:
                pause = retries.next_pause() if self._may_pass and not session.up else None
                if not session.up:
                    self._life.start_failed(exc, pause)
                if pause is None:
                    raise
                await anyio.sleep(pause)
            else:
                return

    def _come_up(self, session: Session[None]) -> None:
        """The plugin can be called."""
        session.started(None)
        if self._options.reattach is None and self._options.address is None:
            self.start_seconds = anyio.current_time() - self._began
            self.started_at = self._life.started(self.pid, self.start_seconds)
        else:
            self._note("plugin.attached", "attached to plugin %s")

    def _tell_end(self) -> None:
        """It is no longer this client's, because somebody wanted that."""
        if self.left:
            self._note("plugin.left", "plugin %s is left running")
        else:
            self._note("plugin.stopped", "plugin %s was stopped")

    def _note(self, event: str, text: str) -> None:
        self._life.tell(event, logging.DEBUG, text, self.name, pid=self.pid)

    async def _tell(
        self, on_exit: Callable[[PluginExit], Awaitable[object] | object], exit_: PluginExit
    ) -> None:
        """Call the user's function; what it does wrong is its own."""
        with anyio.move_on_after(ON_EXIT_LIMIT, shield=True) as scope:
            try:
                result: Any = on_exit(exit_)
                if hasattr(result, "__await__"):
                    await result
            except Exception as exc:  # noqa: BLE001 - boundary: it is not ours
                self._log.error("on_exit of plugin %s failed", self.name, exc_info=exc)
        if scope.cancelled_caught:
            limit = ON_EXIT_LIMIT
            self._log.warning("on_exit of plugin %s took over %g seconds", self.name, limit)

    # With a process of ours.

    @functools.cached_property
    def _stderr(self) -> LineLog:
        # Not before the plugin has been spawned: it loads what reads the lines.
        return LineLog(self._log)

    def _take_stderr(self, line: str) -> None:
        self._stderr.feed(line)

    async def _launch(self, session: Session[None], retries: Retries) -> None:
        options, settings = self._options, self.settings
        process: PluginProcess | None = None
        socket: str | None = None
        began = anyio.current_time()
        command, env = await self._prepared()
        try:
            async with turn_to_start() as has_started:
                retries.wait_longer(anyio.current_time() - began)
                with self._socket_folder() as folder:
                    if folder is not None:
                        settings = msgspec.structs.replace(settings, unix_socket_dir=folder)
                    self._tls = tls = host_tls(settings, options.tls)
                    environment = handshake.build_environment(
                        settings,
                        env=env,
                        inherit_env=options.inherit_env,
                        certificate=tls.certificate,
                    )
                    async with (
                        self._program(command, environment) as program,
                        self._heard() as on_stderr,
                        supervised(
                            self._runner(program, environment, folder, tls),
                            on_stderr=on_stderr,
                            on_stderr_line=self._take_stderr,
                            longest_line=settings.log_line_limit,
                        ) as process,
                    ):
                        self.process, self.pid = process, process.pid
                        load_engine(tls.mode)
                        tls.prepare()
                        if settings.wait_for_debugger:
                            # Nobody else waits for the one who debugs this plugin.
                            has_started()
                        self.record = record = await self._handshake(process, retries)
                        has_started()
                        await program.check_again()
                        network, address = process.runner.plugin_to_host(
                            record.network, record.address
                        )
                        socket = address if network == "unix" else None
                        link = Link(
                            _transport_of(network, address),
                            self._credentials(tls, record, process),
                            process,
                        )
                        if record.multiplex and settings.multiplex_grpc:
                            link.share(settings.connection_timeout)
                        await self._serve_process(session, process, record, link, settings, retries)
        finally:
            self._stderr.flush()
            if socket is not None and not self.left:
                remove_dead_socket(socket)
            if process is not None and not self.left:
                # Of a start that fails, the last one counts; until then, there may be another one.
                self.exit = process.exit
                if session.up:
                    self.exited.set()

    def _heard(self) -> AbstractAsyncContextManager[Callable[[bytes], None] | None]:
        """Where what it writes to its standard error goes, beside the log."""
        if self._options.stderr is None:
            return contextlib.nullcontext()
        from ._relay import heard_by  # noqa: PLC0415 - seldom asked for

        return heard_by(self._options.stderr, "stderr", self._log)

    def _socket_folder(self) -> contextlib.AbstractContextManager[str | None]:
        """A folder for this start; a plugin that outlives its host has to have one of its own."""
        settings = self.settings
        if settings.outlive_host:
            return contextlib.nullcontext()
        return socket_folder(settings.unix_socket_dir, settings.unix_socket_group)

    async def _prepared(self) -> tuple[list[str], Mapping[str, str]]:
        """What is started, and the variables for it; making its environment may take a while."""
        options = self._options
        env = options.env or {}
        if options.program is None:
            return options.command or [], env
        prepared = await options.program.prepare(secure=self._secure())
        return prepared.command, {**prepared.env, **env}

    def _secure(self) -> SecureConfig | None:
        """The checksum, with its files as this process finds them."""
        secure, cwd = self._options.secure, self._options.cwd
        if secure is None or secure.files is None or cwd is None:
            return secure
        files = [os.path.join(cwd, file) for file in secure.files]
        return type(secure)(secure.algorithm, secure.digest, files)

    def _program(
        self, command: list[str], environment: dict[str, str]
    ) -> AbstractAsyncContextManager[Checked]:
        """What is started; with a checksum, what it should be."""
        options = self._options
        if options.runner is not None:
            # Where that is to be found, only the runner knows.
            return contextlib.nullcontext(Checked(list(command)))
        return checked(command, options.secure, environment, options.cwd)

    def _runner(
        self, program: Checked, environment: dict[str, str], folder: str | None, tls: HostTLS
    ) -> AbstractAsyncContextManager[Runner | AttachedRunner]:
        """What starts it."""
        options, settings = self._options, self.settings
        spec = RunSpec(
            command=program.command,
            env=environment,
            cwd=None if options.cwd is None else os.fspath(options.cwd),
            stdin=options.stdin,
            socket_folder=folder,
            limits=options.limits,
            outlives_host=settings.outlive_host,
        )
        if options.runner is None:
            executable, pass_fds = program.executable, program.pass_fds
            # Windows hands no descriptors on: there a plugin makes its own.
            if sys.platform == "win32" or (pair := tls.for_plugin()) is None:
                return subprocess_runner(spec, executable=executable, pass_fds=pass_fds)
            from pyvider_rpcplugin.process._handing import (  # noqa: PLC0415 - with TLS only
                handing_runner,
            )

            return handing_runner(spec, pair, executable=executable, pass_fds=pass_fds)
        from ._reattach import context_of  # noqa: PLC0415 - seldom needed

        return context_of(options.runner, spec)

    async def _handshake(self, process: PluginProcess, retries: Retries) -> HandshakeRecord:
        limit = min(self.settings.handshake_timeout, retries.seconds_left)
        if self.settings.wait_for_debugger:
            limit = math.inf
        began = anyio.current_time()
        reader = handshake.HandshakeReader()
        try:
            with anyio.move_on_after(limit) as scope, unwrapped():
                async with anyio.create_task_group() as tg:
                    tg.start_soon(_hurry_when_exited, process, scope)
                    await self._read_line(process, reader)
                    tg.cancel_scope.cancel()
            self._after_line = reader.leftover
            if reader.line is None:
                raise await self._no_line(process, reader, limit, timed_out=scope.cancelled_caught)
            record = handshake.parse_handshake_line(
                reader.line,
                versions=self.settings.protocol_versions,
                networks=self.settings.client_transports,
                multiplex_requested=self.settings.multiplex_grpc,
            )
        except RPCPluginError as exc:
            complete(exc, "handshake", process.exit)
            raise
        if self.settings.wait_for_debugger:
            retries.wait_longer(anyio.current_time() - began)
        return record

    @staticmethod
    def _credentials(
        tls: HostTLS, record: HandshakeRecord, process: PluginProcess
    ) -> Credentials | None:
        """What to connect with, by what the plugin answered."""
        try:
            return tls.credentials(record.certificate)
        except RPCPluginError as exc:
            complete(exc, "handshake", process.exit)
            raise

    async def _read_line(self, process: PluginProcess, reader: HandshakeReader) -> None:
        while reader.line is None:
            data = await process.read_stdout()
            for line in reader.feed(data) if data else reader.feed_eof():
                self._log.info("stdout before the handshake: %s", line.decode(errors="replace"))
            if not data:
                return

    async def _no_line(
        self, process: PluginProcess, reader: HandshakeReader, limit: float, *, timed_out: bool
    ) -> HandshakeError:
        timed_out = timed_out and not process.exited.is_set()
        exit_ = None if timed_out else await _exit_of(process)
        if timed_out:
            self._may_pass = True
            error = failure(
                HandshakeError,
                f"no handshake line within {limit:.3g} seconds: {reader.seen}",
                phase="handshake",
                exit=process.exit,
                hint=_bound(limit < self.settings.handshake_timeout, "HANDSHAKE_TIMEOUT"),
            )
        else:
            # Killed by somebody else, who may not do it again; a status of its own it would repeat.
            self._may_pass = exit_ is not None and (exit_.status or 0) < 0
            error = reader.failure(exit_)
        if diagnosis := await _diagnosis_of(process):
            error.hint = with_last_words(diagnosis, process.exit)
        return error

    async def _serve_process(
        self,
        session: Session[None],
        process: PluginProcess,
        record: HandshakeRecord,
        link: Link,
        settings: Settings,
        retries: Retries,
    ) -> None:
        channel = self._make_channel(link)
        from ._relay import OutputRelay  # noqa: PLC0415 - see load_engine

        printed = OutputLog(self._log, self.settings.log_line_limit)
        output = OutputRelay(
            self._options.sync_stdout, self._options.sync_stderr or printed.take, self._log
        )
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._stderr.run)
                tg.start_soon(printed.run)
                output.raw(self._after_line)
                tg.start_soon(_drain, process, output)
                link.tasks = tg
                await self._connect(tg, link, channel, record.address, process, retries)
                broker = link.broker(record, settings)
                await tg.start(broker.run)
                self.channel, self.broker = channel, broker
                process.left = self.left
                self._come_up(session)
                # These have time: whoever waited for the start is about to make the first call.
                tg.start_soon(output.run, channel)
                tg.start_soon(broker.keep_conversation, channel)
                begin = functools.partial(self._begin_offer, tg, channel, broker)
                with self._options.offers.given(begin):
                    await first(session.stop_requested.wait, process.exited.wait)
                if process.exited.is_set():
                    self._stderr.flush()
                    broker.refuse(f"is closed: the plugin {process.exit.describe()}")
                    self._exit_told = True
                    self._life.exited(self.pid, process.exit)
                    self.left = False
                elif not self.left:
                    await process.shutdown(
                        polite=functools.partial(request_shutdown, channel),
                        grace=self.settings.grpc_grace_period + _END_MARGIN,
                    )
                if not self.left:
                    self.exit = process.exit
                    self.exited.set()
                    # Its calls are told how the plugin ended, before they are told that it is over.
                    channel.endpoint_ended(process.exit)
                    with anyio.move_on_after(_LOSS_GRACE):
                        await link.ended.wait()
                        await output.ended.wait()
                printed.flush()
                channel.close()
                if self.left:
                    with anyio.move_on_after(_LOSS_GRACE):
                        await link.ended.wait()
                tg.cancel_scope.cancel()

    # With one that runs already.

    async def _reattach(
        self, session: Session[None], record: ReattachConfig, retries: Retries
    ) -> None:
        from ._reattach import attach, credentials_of, handshake_of  # noqa: PLC0415 - seldom needed

        self.record = handshake_of(record, self.settings)
        credentials = credentials_of(record, self.settings, self._options.tls, self._log)
        load_engine(Mode.PLAIN if credentials is None else Mode.AUTO)
        process: PluginProcess | None = None
        socket: str | None = None
        self.left = True
        try:
            async with supervised(attach(record, self._options.runner)) as process:
                # Whatever fails from here on is no reason to end a plugin that works for others.
                process.left = True
                self.process, self.pid = process, process.pid
                network, address = process.runner.plugin_to_host(record.network, record.address)
                link = Link(_transport_of(network, address), credentials, process)
                socket = address if network == "unix" else None
                self.left = record.test
                await self._serve_process(
                    session, process, self.record, link, self.settings, retries
                )
        finally:
            # It fails the same way the next time.
            self._may_pass = False
            if process is not None and process.exited.is_set():
                self.exit = process.exit
                if socket is not None:
                    remove_dead_socket(socket)

    def reattach_config(self) -> ReattachConfig:
        """The record of the plugin that runs."""
        if self._options.reattach is not None:
            return self._options.reattach
        from ._reattach import record_of  # noqa: PLC0415 - seldom needed

        shared = bool(self.record and self.record.multiplex and self.settings.multiplex_grpc)
        return record_of(self.record, self.process, self._tls, shared=shared)

    def leave(self) -> None:
        """Let the plugin live on when this ends."""
        if self.process is not None:
            self.process.leave()
        self.left = True

    def _begin_offer(self, tg: TaskGroup, channel: Channel, broker: Broker) -> None:
        """Let the plugin call back."""
        from ._back import PluginPeer  # noqa: PLC0415 - few plugins do

        tg.start_soon(PluginPeer(self._options.offers, broker, channel).offer)

    # Without one.

    async def _attach(self, session: Session[None], address: str, retries: Retries) -> None:
        link = Link(transport_at(address), self._credentials_for(address), None)
        channel = self._make_channel(link)
        with unwrapped():
            async with anyio.create_task_group() as tg:
                await self._connect(tg, link, channel, address, None, retries)
                self.channel = channel
                self.left = True
                self._come_up(session)
                await session.stop_requested.wait()
                channel.close()
                tg.cancel_scope.cancel()

    def _credentials_for(self, address: str) -> Credentials | None:
        """What to connect to a standalone server with: nothing is agreed on with one."""
        settings = msgspec.structs.replace(self.settings, auto_mtls=False)
        tls = host_tls(settings, self._options.tls, server_hostname=server_name(address))
        if tls.mode is Mode.PLAIN and self.settings.auto_mtls == "required":
            msg = "PLUGIN_AUTO_MTLS=required, but there are no certificates for a server that is "
            msg += "attached to"
            hint = "Set PLUGIN_SERVER_ROOT_CERTS or PLUGIN_CA_CERT, or give tls=."
            raise SecurityError(msg, hint, phase="tls")
        if tls.mode is Mode.PLAIN and self.settings.auto_mtls:
            self._log.warning("the connection to %s is plain: no certificates were given", address)
        return tls.credentials(None)

    # Both.

    def _make_channel(self, link: Link) -> Channel:
        from pyvider_rpcplugin.rpc import Channel  # noqa: PLC0415 - see load_engine

        self.link = link
        return Channel(
            link.connect,
            scheme=link.scheme,
            options=rpc_options(self.settings, self._options.default_deadline),
            on_lost=link.explain_loss,
            interceptors=self._options.interceptors,
        )

    async def _connect(
        self,
        tg: TaskGroup,
        link: Link,
        channel: Channel,
        address: str,
        process: PluginProcess | None,
        retries: Retries,
    ) -> None:
        limit = min(self.settings.connection_timeout, retries.seconds_left)
        cause: BaseException
        try:
            with anyio.fail_after(limit):
                await tg.start(link.run, channel)
            return
        except SecurityError as exc:
            # It would be the same the next time.
            complete(exc, "tls", None if process is None else process.exit)
            raise
        except TransportError as exc:
            error = cause = exc
        except TimeoutError as exc:
            msg = f"no connection to the plugin at {address} within {limit:.3g} seconds"
            hint = _bound(limit < self.settings.connection_timeout, "CONNECTION_TIMEOUT")
            error, cause = TransportError(msg, f"Does it speak gRPC there? {hint}"), exc
        except (GRPCError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            msg = f"the connection to the plugin at {address} was lost before it was up: {exc}"
            error, cause = TransportError(msg), exc
        # A plugin that has died since is the better story, and it does not pass.
        exit_ = None if process is None else await _exit_of(process)
        self._may_pass = exit_ is None or (exit_.status or 0) < 0
        if exit_ is not None:
            error = TransportError(f"the plugin {exit_.describe()} before it could be called")
        complete(error, "connect", exit_ or (process.exit if process is not None else None))
        if error is cause:
            raise error
        raise error from cause


def load_engine(mode: Mode) -> None:
    """Load what a started plugin needs: while the plugin loads its own, that costs nothing."""
    names = [
        "handshake._reader",
        "logs._parse",
        "rpc._channel",
        "services._brokers",
        "services.stdio",
        "transport._choose",
        "client._relay",
    ]
    if mode is not Mode.PLAIN:
        names += ["crypto.contexts", "transport._tls"]
        # By it `ssl` looks at the name of a server, and it loads the tables of Unicode.
        codecs.lookup("idna")
    if "google.protobuf" not in sys.modules:
        # Without generated code, its services are typed.
        names += ["protocol.typed._proxy", "client._back"]
    for name in names:
        importlib.import_module(f"pyvider_rpcplugin.{name}")
    # What channels use unless they are told otherwise.
    importlib.import_module("grpclib.encoding.proto")


def _transport_of(network: str, address: str) -> RPCPluginTransport:
    from pyvider_rpcplugin.transport import transport_for  # noqa: PLC0415 - see load_engine

    return transport_for(network, address)


class Link:
    """What a channel asks: for a connection, and what has become of the plugin behind it.

    An object of its own, because a user may keep the channel, which would keep all the rest.
    """

    def __init__(
        self,
        transport: RPCPluginTransport,
        credentials: Credentials | None,
        process: PluginProcess | None,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self.scheme: str = "http" if credentials is None else "https"
        self._process = process
        self._shared: SharedWays | None = None
        self._connected_once = False
        self.tasks: TaskGroup | None = None
        self.ended = anyio.Event()

    def share(self, timeout: float) -> None:
        """Have all go over one connection, as the plugin has agreed to."""
        from pyvider_rpcplugin.services import SharedWays  # noqa: PLC0415 - hardly ever needed

        self._shared = SharedWays(
            client=True, credentials=self._credentials, handshake_timeout=timeout
        )

    @property
    def is_shared(self) -> bool:
        """Whether all goes over one connection: there is no second one."""
        return self._shared is not None

    async def connect(self) -> ByteStream:
        stream: ByteStream
        if self._shared is None:
            stream = await self._transport.connect()
        else:
            stream = await self._open(self._shared)
        if self._credentials is None:
            return stream
        from pyvider_rpcplugin.transport import wrap_client  # noqa: PLC0415 - see load_engine

        return await wrap_client(stream, self._credentials)

    async def _open(self, shared: SharedWays) -> ByteStream:
        """Open the main stream; the first one makes the connection, and there is no second."""
        if not self._connected_once and self.tasks is not None:
            connection = await self._transport.connect()
            try:
                await self.tasks.start(shared.run, connection)
            except BaseException:
                await anyio.aclose_forcefully(connection)
                raise
            self._connected_once = True
        return shared.open()

    async def explain_loss(self) -> PluginExit | None:
        """Say how the plugin ended, if it has; otherwise it may be connected to again."""
        return None if self._process is None else await _exit_of(self._process)

    def broker(self, record: HandshakeRecord, settings: Settings) -> Broker:
        """Make the broker for more connections like the ones made here."""
        from pyvider_rpcplugin.services import host_broker  # noqa: PLC0415 - see load_engine

        return host_broker(
            record,
            settings,
            self._credentials,
            self.explain_loss,
            self._shared,
            None if self._process is None else self._process.runner,
        )

    async def run(self, channel: Channel, *, task_status: TaskStatus[None]) -> None:
        """Run the channel, and note when it has ended."""
        try:
            await channel.run(task_status=task_status)
        finally:
            self.ended.set()


async def _drain(process: PluginProcess, output: OutputRelay) -> None:
    """Read what the plugin writes to its pipe, to the end."""
    try:
        await process.drain_stdout(output.raw)
    finally:
        output.end_raw()


def _bound(all_together: bool, setting: str) -> str:
    """Say which setting ended an attempt."""
    if all_together:
        return "PLUGIN_CLIENT_RETRY_TOTAL_TIMEOUT_S bounds all attempts together."
    return f"PLUGIN_{setting} sets how long it may take."


async def _exit_of(process: PluginProcess) -> PluginExit | None:
    """Return how the process ended, if it has, or does within a moment."""
    with anyio.move_on_after(EXIT_GRACE):
        return await process.wait()
    return None


async def _diagnosis_of(process: PluginProcess) -> str:
    """Ask the runner why nothing has started."""
    diagnose: Any = getattr(process.runner, "diagnose", None)
    if diagnose is None:
        return ""
    with anyio.move_on_after(_DIAGNOSIS_LIMIT):
        try:
            return " ".join(str(await diagnose()).split())
        except Exception as exc:  # noqa: BLE001 - boundary: there is an error to report already
            return f"the runner cannot say why: {exc!r}"
    return ""


async def _hurry_when_exited(process: PluginProcess, scope: anyio.CancelScope) -> None:
    """Bound the reading of what a plugin wrote once it has ended.

    Its output may be held open by a process that it started and that outlives it.
    """
    await process.exited.wait()
    scope.deadline = min(scope.deadline, anyio.current_time() + EXIT_GRACE)
