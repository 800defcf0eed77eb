"""What a client's session does: start the plugin, connect, watch over both, and end both."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import handshake
from pyvider_rpcplugin._tasks import Session, unwrapped
from pyvider_rpcplugin.crypto import Mode, host_tls
from pyvider_rpcplugin.exception import (
    ConfigError,
    HandshakeError,
    PluginExit,
    RPCPluginError,
    SecurityError,
    TransportError,
)
from pyvider_rpcplugin.process import PluginProcess, checked, start_process
from pyvider_rpcplugin.services import request_shutdown, rpc_options

from ._command import server_name, transport_at
from ._errors import complete, failure
from ._folder import remove_dead_socket, socket_folder
from ._log import LineLog, OutputLog, PluginLog
from ._starts import Retries, turn_to_start

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Collection, Mapping

    from anyio.abc import ByteStream, TaskGroup, TaskStatus

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import Credentials, HostTLS
    from pyvider_rpcplugin.handshake import HandshakeReader, HandshakeRecord
    from pyvider_rpcplugin.process import ResourceLimits, SecureConfig
    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.services import Broker, SharedWays
    from pyvider_rpcplugin.transport import RPCPluginTransport

    from ._relay import OutputRelay
    from ._sinks import Deliver

# A lost connection mostly means that the plugin has died: so long is waited for its exit status.
EXIT_GRACE = 0.25
# How long its calls may take to notice. Longer than the channel gives a connection that something
# which the plugin left behind holds open.
_LOSS_GRACE = 1.0
# What the plugin may take to end beyond the grace that its running calls get.
_END_MARGIN = 1.0


class LaunchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a plugin is started, or where a running one is found."""

    command: list[str] | None
    address: str | None
    env: Mapping[str, str] | None
    inherit_env: bool | Collection[str]
    cwd: str | os.PathLike[str] | None
    stdin: Literal["null", "inherit"]
    tls: ssl.SSLContext | None
    secure: SecureConfig | None
    limits: ResourceLimits | None
    sync_stdout: Deliver | None
    sync_stderr: Deliver | None

    def __repr__(self) -> str:
        # What a caller gives to a plugin may be secret.
        return f"LaunchOptions(command={self.command!r}, address={self.address!r})"


class Launch:
    """One start of a plugin, to its end. Knows nothing of the client, which may be forgotten.

    Attributes:
        channel: What calls go through, as soon as it is up.
        broker: What makes more connections, at the same time.
        exit: How the plugin has ended, once it has.
        exited: Set at the same time.
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
        self._options = options
        self._may_pass = False
        self._log = PluginLog(name, settings.log_level)
        self._after_line = b""
        self._process: PluginProcess | None = None

    def abandon(self) -> None:
        """End the process without an event loop: its own was closed under it. It blocks a moment."""
        if self._process is not None and self.exit is None:
            self._process.abandon()
            self.exit = self._process.exit

    async def run(self, session: Session[None]) -> None:
        """Be the session: start, again if that may help, and stay until the plugin has ended."""
        retries = Retries(self.settings)
        while True:
            self._may_pass = False
            self.record = None
            try:
                if self._options.command is None:
                    await self._attach(session, retries)
                else:
                    await self._launch(session, self._options.command, retries)
            except RPCPluginError as exc:
                pause = retries.next_pause() if self._may_pass and not session.up else None
                if pause is None:
                    raise
                self._log.info("plugin %s: starting again after: %s", self.name, exc.message)
                await anyio.sleep(pause)
            else:
                return

    # With a process of ours.

    @functools.cached_property
    def _stderr(self) -> LineLog:
        # Not before the plugin has been spawned: it loads what reads the lines.
        return LineLog(self._log)

    def _take_stderr(self, line: str) -> None:
        self._stderr.feed(line)

    async def _launch(self, session: Session[None], command: list[str], retries: Retries) -> None:
        options, settings = self._options, self.settings
        process: PluginProcess | None = None
        began = anyio.current_time()
        try:
            async with turn_to_start() as has_started:
                retries.wait_longer(anyio.current_time() - began)
                group = settings.unix_socket_group
                with socket_folder(settings.unix_socket_dir, group) as folder:
                    if folder is not None:
                        settings = msgspec.structs.replace(settings, unix_socket_dir=folder)
                    tls = host_tls(settings, options.tls)
                    environment = handshake.build_environment(
                        settings,
                        env=options.env,
                        inherit_env=options.inherit_env,
                        certificate=tls.certificate,
                    )
                    async with (
                        checked(command, options.secure, environment, options.cwd) as program,
                        start_process(
                            program.command,
                            env=environment,
                            cwd=options.cwd,
                            stdin=options.stdin,
                            on_stderr_line=self._take_stderr,
                            executable=program.executable,
                            pass_fds=program.pass_fds,
                            limits=options.limits,
                        ) as process,
                    ):
                        self._process = process
                        self.pid = process.pid
                        load_engine(tls.mode)
                        self.record = record = await self._handshake(process, retries)
                        has_started()
                        await program.check_again()
                        link = _Link(
                            _transport_of(record), self._credentials(tls, record, process), process
                        )
                        if record.multiplex and settings.multiplex_grpc:
                            link.share(settings.connection_timeout)
                        await self._serve_process(session, process, record, link, settings, retries)
        finally:
            self._stderr.flush()
            if self.record is not None and self.record.network == "unix":
                remove_dead_socket(self.record.address)
            if process is not None and session.up:
                self._note_exit(process.exit)

    async def _handshake(self, process: PluginProcess, retries: Retries) -> HandshakeRecord:
        limit = min(self.settings.handshake_timeout, retries.seconds_left)
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
            return failure(
                HandshakeError,
                f"no handshake line within {limit:.3g} seconds: {reader.seen}",
                phase="handshake",
                exit=process.exit,
                hint=_bound(limit < self.settings.handshake_timeout, "HANDSHAKE_TIMEOUT"),
            )
        # Killed by somebody else, who may not do it again; a status of its own it would repeat.
        self._may_pass = exit_ is not None and exit_.status is not None and exit_.status < 0
        return reader.failure(exit_)

    async def _serve_process(
        self,
        session: Session[None],
        process: PluginProcess,
        record: HandshakeRecord,
        link: _Link,
        settings: Settings,
        retries: Retries,
    ) -> None:
        channel = self._make_channel(link)
        from ._relay import OutputRelay  # noqa: PLC0415 - see load_engine

        printed = OutputLog(self._log)
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
                session.started(None)
                # These have time: whoever waited for the start is about to make the first call.
                tg.start_soon(output.run, channel)
                tg.start_soon(broker.keep_conversation, channel)
                await _first(session.stop_requested, process.exited)
                if process.exited.is_set():
                    self._stderr.flush()
                    broker.refuse(f"is closed: the plugin {process.exit.describe()}")
                    self._log.warning("plugin %s %s", self.name, process.exit.describe())
                else:
                    await process.shutdown(
                        polite=functools.partial(request_shutdown, channel),
                        grace=self.settings.grpc_grace_period + _END_MARGIN,
                    )
                self._note_exit(process.exit)
                # Its calls are told how the plugin ended, before they are told that it is over.
                channel.endpoint_ended(process.exit)
                with anyio.move_on_after(_LOSS_GRACE):
                    await link.ended.wait()
                    await output.ended.wait()
                printed.flush()
                channel.close()
                tg.cancel_scope.cancel()

    def _note_exit(self, exit_: PluginExit) -> None:
        self.exit = exit_
        self.exited.set()

    # Without one.

    async def _attach(self, session: Session[None], retries: Retries) -> None:
        address = self._options.address or ""
        if self.settings.multiplex_grpc:
            msg = "PLUGIN_MULTIPLEX_GRPC is for plugins that this host starts, not for an address"
            raise ConfigError(msg, phase="settings")
        link = _Link(transport_at(address), self._credentials_for(address), None)
        channel = self._make_channel(link)
        with unwrapped():
            async with anyio.create_task_group() as tg:
                await self._connect(tg, link, channel, address, None, retries)
                self.channel = channel
                session.started(None)
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

    def _make_channel(self, link: _Link) -> Channel:
        from pyvider_rpcplugin.rpc import Channel  # noqa: PLC0415 - see load_engine

        return Channel(
            link.connect,
            scheme=link.scheme,
            options=rpc_options(self.settings),
            on_lost=link.explain_loss,
        )

    async def _connect(
        self,
        tg: TaskGroup,
        link: _Link,
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
    for name in names:
        importlib.import_module(f"pyvider_rpcplugin.{name}")


def _transport_of(record: HandshakeRecord) -> RPCPluginTransport:
    from pyvider_rpcplugin.transport import transport_for  # noqa: PLC0415 - see load_engine

    return transport_for(record.network, record.address)


class _Link:
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
        self._is_shared = False
        self.tasks: TaskGroup | None = None
        self.ended = anyio.Event()

    def share(self, timeout: float) -> None:
        """Have all go over one connection, as the plugin has agreed to."""
        from pyvider_rpcplugin.services import SharedWays  # noqa: PLC0415 - hardly ever needed

        self._shared = SharedWays(
            client=True, credentials=self._credentials, handshake_timeout=timeout
        )

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
        if not self._is_shared and self.tasks is not None:
            connection = await self._transport.connect()
            try:
                await self.tasks.start(shared.run, connection)
            except BaseException:
                await anyio.aclose_forcefully(connection)
                raise
            self._is_shared = True
        return shared.open()

    async def explain_loss(self) -> PluginExit | None:
        """Say how the plugin ended, if it has; otherwise it may be connected to again."""
        return None if self._process is None else await _exit_of(self._process)

    def broker(self, record: HandshakeRecord, settings: Settings) -> Broker:
        """Make the broker for more connections like the ones made here."""
        from pyvider_rpcplugin.services import host_broker  # noqa: PLC0415 - see load_engine

        return host_broker(record, settings, self._credentials, self.explain_loss, self._shared)

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


async def _hurry_when_exited(process: PluginProcess, scope: anyio.CancelScope) -> None:
    """Bound the reading of what a plugin wrote once it has ended.

    Its output may be held open by a process that it started and that outlives it.
    """
    await process.exited.wait()
    scope.deadline = min(scope.deadline, anyio.current_time() + EXIT_GRACE)


async def _first(*events: anyio.Event) -> None:
    """Wait until one of the events is set."""
    async with anyio.create_task_group() as tg:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            tg.cancel_scope.cancel()

        for event in events:
            tg.start_soon(wait, event)
