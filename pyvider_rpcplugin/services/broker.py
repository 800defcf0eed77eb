"""More connections between a host and its plugin, in both directions (`plugin.GRPCBroker`).

Either side serves something under a number, and tells the other one, over a stream that stays
open, where that is. The number travels in a message of the application; who gets it dials.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._tasks import Session, unwrapped
from pyvider_rpcplugin.exception import TransportError

from ._mailboxes import WINDOW, Heard, Mailboxes
from ._messages import ConnInfo

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable

    from anyio.abc import ByteStream, TaskGroup, TaskStatus

    from pyvider_rpcplugin.exception import PluginExit
    from pyvider_rpcplugin.rpc import Channel, RPCOptions, Servable
    from pyvider_rpcplugin.transport import StreamListener

    from ._brokered import BrokeredServer
    from ._mailboxes import Announced, Unreadable
    from ._ways import Ways

__all__ = ["Broker", "current_broker", "current_version"]

logger: logging.Logger = event_logger(__name__)

_START_STREAM = "/plugin.GRPCBroker/StartStream"
_ADVICE = "leave the block of broker.serve() or broker.dial()"
# What the end of one brokered connection may take beyond the grace that its calls get.
_END_MARGIN = 10.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
# A peer that sends nonsense could fill the log with it.
_MOST_COMPLAINTS = 20
# While a peer does not read so many messages, it is not listened to: each word may need an answer.
_MOST_UNREAD = 1024

current_broker: contextvars.ContextVar[Broker | None] = contextvars.ContextVar(
    "current_broker", default=None
)
"""The broker of the connection whose call is being handled."""

current_version: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "current_version", default=None
)
"""The version of the application's protocol that the running plugin serves."""


class Broker:
    """Serves and dials by numbers that both sides agree on.

    Each side counts for itself, so the host's 1 and the plugin's 1 are two services. One service
    is for one `dial`, within 5 seconds of its announcement. The connections are of the kind of the
    main one, with its certificates.

    It belongs to one started client (`client.broker`) or to one served plugin
    (`pyvider_rpcplugin.context().broker`), and ends together with it.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        peer: str,
        options: RPCOptions,
        grace: float,
        connection_timeout: float,
        on_lost: Callable[[], Awaitable[PluginExit | None]] | None = None,
    ) -> None:
        """Make a broker; it works while `run` does.

        Args:
            ways: How it listens and connects.
            peer: What the other side is called in errors: "host" or "plugin".
            options: Limits of the connections.
            grace: Seconds that running calls get when their service ends.
            connection_timeout: Seconds that connecting may take.
            on_lost: Given to the channels: says how the process behind them has ended.
        """
        self._ways = ways
        ways.say = self._say
        self._peer = peer
        self._options = options
        self._grace = grace
        self._connection_timeout = connection_timeout
        self._on_lost = on_lost
        self._boxes = Mailboxes(networks=ways.networks)
        self._tasks: TaskGroup | None = None
        self._context: contextvars.Context | None = None
        self._services: set[Session[None]] = set()
        self._conversation: anyio.CancelScope | None = None
        self._outgoing: deque[ConnInfo] = deque()
        self._changed = anyio.Event()
        self._unavailable: str | None = None
        self._complaints = 0
        self._closed = anyio.Event()

    def __repr__(self) -> str:
        state = self._unavailable or ("running" if self._tasks is not None else "not running")
        return f"<Broker to the {self._peer}: {state}>"

    # For users.

    def next_id(self) -> int:
        """Give a number that this side has not used yet."""
        return self._boxes.next_id()

    @contextlib.asynccontextmanager
    async def serve(
        self, services: Servable | Iterable[Servable], *, service_id: int | None = None
    ) -> AsyncGenerator[int]:
        """Serve to the other side for the length of a block.

        Args:
            services: A handler, or several: grpclib's generated bases, or whatever else has
                `__mapping__()`.
            service_id: What was got from `next_id`; by default the next number.

        Yields:
            The number, for the other side to dial.

        Raises:
            TransportError: The other side has no broker or is gone, or there is no way to listen.
            SecurityError: The connection is encrypted, and this side has no certificate for it.
            ProtocolError: There is no service in `services`.

        Cancellation:
            Ends the service; so does leaving the block in any other way. Calls that run get a
            moment if the block is left in peace.
        """
        number = self.next_id() if service_id is None else service_id
        server = self._new_server(services)
        session = self._begin(f"service {number}", functools.partial(self._serve, number, server))
        await session.wait_started()
        peaceful = False
        try:
            yield number
            peaceful = True
        finally:
            session.limit = (self._grace if peaceful else 0) + _END_MARGIN
            if not peaceful:
                server.grace = 0.0
            session.request_stop()
            await session.wait_finished()

    async def start_serving(
        self, services: Servable | Iterable[Servable], *, service_id: int | None = None
    ) -> int:
        """Serve to the other side for as long as it stays: for numbers that a handler returns.

        The service ends by itself when nobody has been connected to it for 5 seconds, from its
        announcement on; and when the broker ends.

        Args:
            services: See `serve`, as for the errors.
            service_id: What was got from `next_id`; by default the next number.

        Returns:
            The number, for the other side to dial.

        Cancellation:
            Ends the service if it has not begun.
        """
        number = self.next_id() if service_id is None else service_id
        server = self._new_server(services)
        run = functools.partial(self._serve, number, server, until_left=True)
        session = self._begin(f"service {number}", run)
        await session.wait_started()
        return number

    @contextlib.asynccontextmanager
    async def dial(
        self,
        service_id: int,
        *,
        timeout: float = WINDOW,  # noqa: ASYNC109 - as calls have it
    ) -> AsyncGenerator[Channel]:
        """Connect to what the other side serves under a number, for the length of a block.

        Args:
            service_id: The number, as the other side has sent it.
            timeout: Seconds to wait for the announcement, which may come later than the number.

        Yields:
            A channel for generated stubs.

        Raises:
            TransportError: There was no announcement, or nobody can be reached there.
            SecurityError: The other end is not who it should be.

        Cancellation:
            Closes the connection; so does leaving the block.
        """
        info = await self._find(service_id, timeout)
        session = self._begin(
            f"connection to service {service_id}", functools.partial(self._connect, info)
        )
        channel = await session.wait_started()
        try:
            yield channel
        finally:
            channel.close()
            session.request_stop()
            await session.wait_finished()

    @contextlib.asynccontextmanager
    async def accept(self, service_id: int) -> AsyncGenerator[StreamListener]:
        """Announce a listener, for the length of a block, and serve on it whatever you like.

        Args:
            service_id: What was got from `next_id`.

        Yields:
            The listener. Its connections are encrypted if the main one is.

        Raises:
            TransportError: The other side has no broker or is gone, or there is no way to listen.
            SecurityError: The connection is encrypted, and this side has no certificate for it.
        """
        await self._wait_conversation()
        async with self._ways.listen(service_id) as (info, listener):
            with self._announced(info):
                yield listener

    async def accept_and_serve(
        self,
        service_id: int,
        services: Servable | Iterable[Servable],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve to the other side until cancelled, or until the broker ends.

        It is `serve` for a task of its own: `await tg.start(broker.accept_and_serve, number, x)`.

        Args:
            service_id: What was got from `next_id`.
            services: See `serve`, as for the errors.
            task_status: Given by task groups.
        """
        server = self._new_server(services)
        run = functools.partial(self._serve, service_id, server)
        session = self._begin(f"service {service_id}", run)
        await session.wait_started()
        try:
            task_status.started()
            await session.join()
        finally:
            server.grace = 0.0
            session.request_stop()
            await session.wait_finished()

    # For the session that it belongs to.

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be where all that it makes lives, until `close`; the end of this ends it all at once."""
        current_broker.set(self)
        try:
            with unwrapped():
                async with anyio.create_task_group() as self._tasks:
                    # What is begun in the middle of a call must not live by the call's deadline.
                    self._context = contextvars.copy_context()
                    task_status.started()
                    await self._closed.wait()
                    self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            self.refuse("is closed")

    def refuse(self, reason: str) -> None:
        """Let nothing more begin: whoever waits, or comes later, is told that it `reason`."""
        if self._unavailable is None:
            self._unavailable = reason
        self._boxes.clear()
        self._outgoing.clear()
        if self._conversation is not None:
            self._conversation.cancel()
        self._notify()

    async def stop(self, reason: str) -> None:
        """Refuse what is new, and end the services; their running calls get the usual grace.

        What was dialled stays connected, for the calls that still run.
        """
        self.refuse(reason)
        services = list(self._services)
        for session in services:
            session.request_stop()
        for session in services:
            await session.join()

    def close(self) -> None:
        """End all that is left."""
        self._closed.set()

    # The control stream.

    def __mapping__(self) -> dict[str, Handler]:
        """Name the method that a plugin serves."""
        return {_START_STREAM: Handler(self._converse, Cardinality.STREAM_STREAM, Heard, ConnInfo)}

    async def keep_conversation(self, channel: Channel) -> None:
        """Open the control stream, as a host does, and open it again when it was lost.

        It returns if the plugin has no broker.
        """
        pause = _FIRST_PAUSE
        while self._unavailable is None:
            try:
                call = channel.request(
                    _START_STREAM, Cardinality.STREAM_STREAM, ConnInfo, Heard, timeout=math.inf
                )
                async with call.count_apart() as stream:
                    await stream.send_request()
                    if await self._talk(stream):
                        await stream.end()
                    else:
                        await stream.cancel()
            except GRPCError as exc:
                if exc.status is Status.UNIMPLEMENTED:
                    self.refuse("does not exist: the other side serves none")
                    return
                logger.debug("broker.control.lost reason=%s", exc)
            except Exception:  # boundary: the connection has other uses
                logger.exception("broker.control.failed")
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _converse(self, stream: Any) -> None:
        await self._talk(stream)

    async def _talk(self, stream: Any) -> bool:
        """Talk over a control stream until it ends, or until there is a newer one.

        Returns:
            Whether it was the other side that ended it.
        """
        if self._unavailable is not None:
            return False
        if self._conversation is not None:
            # A host that lost its connection may be back before this side has noticed.
            self._conversation.cancel()
        scope = self._conversation = anyio.CancelScope()
        self._notify()
        try:
            with scope, unwrapped():
                async with anyio.create_task_group() as tg:
                    tg.start_soon(self._tell, stream)
                    while (heard := await stream.recv_message()) is not None:
                        self._hear(heard)
                        while len(self._outgoing) > _MOST_UNREAD:
                            await self._changed.wait()
                    tg.cancel_scope.cancel()
            return not scope.cancelled_caught
        finally:
            if self._conversation is scope:
                self._conversation = None

    async def _tell(self, stream: Any) -> None:
        while True:
            changed = self._changed
            while self._outgoing:
                info = self._outgoing[0]
                await stream.send_message(info)
                if self._outgoing and self._outgoing[0] is info:
                    self._outgoing.popleft()
                if len(self._outgoing) == _MOST_UNREAD:
                    self._notify()
            await changed.wait()

    def _hear(self, heard: ConnInfo | Unreadable) -> None:
        if isinstance(heard, ConnInfo) and self._ways.hear(heard):
            return
        complaint = self._boxes.put(heard, anyio.current_time())
        if complaint is not None and self._complaints < _MOST_COMPLAINTS:
            self._complaints += 1
            more = "" if self._complaints < _MOST_COMPLAINTS else " (the last one to be logged)"
            logger.error("the %s's broker sent %s%s", self._peer, complaint, more)
        self._notify()

    def _say(self, info: ConnInfo) -> None:
        self._outgoing.append(info)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # How it is done.

    def _check(self) -> None:
        if self._unavailable is not None:
            msg = f"the broker to the {self._peer} {self._unavailable}"
            raise TransportError(msg, phase="broker")
        if self._tasks is None:
            msg = f"the broker to the {self._peer} is not running"
            raise TransportError(msg, phase="broker")

    async def _find(self, service_id: int, limit: float) -> ConnInfo:
        """Find out what to connect to."""
        if not self._ways.announces:
            await self._wait_conversation()
            return ConnInfo(service_id)
        announced = await self._wait_announced(service_id, limit)
        if announced.fault is not None:
            msg = f"service {service_id} of the {self._peer} cannot be dialled: {announced.fault}"
            raise TransportError(msg, phase="broker")
        return announced.info

    async def _wait_announced(self, service_id: int, limit: float) -> Announced:
        with anyio.move_on_after(limit):
            while True:
                self._check()
                announced = self._boxes.take(service_id, anyio.current_time())
                if announced is not None:
                    return announced
                await self._changed.wait()
        if self._conversation is None:
            raise self._no_conversation(limit)
        msg = f"the {self._peer} announced no service {service_id} within {limit:g} seconds"
        hint = "It has to serve under this number first; a number can be dialled once, and for "
        raise TransportError(msg, f"{hint}{WINDOW:g} seconds after it was served.", phase="broker")

    async def _wait_conversation(self) -> None:
        """Wait until the other side listens to announcements."""
        with anyio.move_on_after(WINDOW):
            while True:
                self._check()
                if self._conversation is not None:
                    return
                await self._changed.wait()
        raise self._no_conversation(WINDOW)

    def _no_conversation(self, limit: float) -> TransportError:
        msg = f"the {self._peer} has opened no broker stream within {limit:g} seconds"
        if self._peer == "plugin":
            msg = f"the broker stream to the plugin was not open within {limit:g} seconds"
        hint = f"The {self._peer} may be of a version that has no broker."
        return TransportError(msg, hint, phase="broker")

    def _begin(self, name: str, body: Callable[[Session[Any]], Awaitable[None]]) -> Session[Any]:
        self._check()
        assert self._tasks is not None  # noqa: S101 - checked
        assert self._context is not None  # noqa: S101 - set together with the task group
        limit = self._grace + self._connection_timeout + _END_MARGIN
        session: Session[Any] = Session(body, name=f"brokered {name}", advice=_ADVICE, limit=limit)
        self._context.copy().run(session.spawn_in, self._tasks)
        return session

    def _new_server(self, services: Servable | Iterable[Servable]) -> BrokeredServer:
        from ._brokered import BrokeredServer  # noqa: PLC0415 - most hosts never serve

        several: Any = services
        if hasattr(services, "__mapping__") or not isinstance(several, (list, tuple, set)):
            several = (services,)
        return BrokeredServer(several, self._options, self._grace)

    async def _serve(
        self,
        service_id: int,
        server: BrokeredServer,
        session: Session[None],
        *,
        until_left: bool = False,
    ) -> None:
        self._services.add(session)
        try:
            await self._wait_conversation()
            async with self._ways.listen(service_id) as (info, listener):
                with unwrapped():
                    async with anyio.create_task_group() as tg:
                        await tg.start(server.serve, listener)
                        if until_left:
                            tg.start_soon(_stop_when_left, server, session)
                        with self._announced(info):
                            session.started(None)
                            await session.stop_requested.wait()
                        await listener.aclose()
                        await server.stop(server.grace)
                        tg.cancel_scope.cancel()
        finally:
            self._services.discard(session)

    @contextlib.contextmanager
    def _announced(self, info: ConnInfo | None) -> Generator[None]:
        if info is None:
            yield
            return
        self._say(info)
        try:
            yield
        finally:
            # If there was nobody to tell it to: it is no longer true.
            with contextlib.suppress(ValueError):
                self._outgoing.remove(info)

    async def _connect(self, info: ConnInfo, session: Session[Channel]) -> None:
        from pyvider_rpcplugin.rpc import Channel  # noqa: PLC0415 - most plugins never dial

        async def connect() -> ByteStream:
            try:
                with anyio.fail_after(self._connection_timeout):
                    return await self._ways.connect(info)
            except TimeoutError as exc:
                limit = self._connection_timeout
                msg = f"no connection to service {info.service_id} within {limit:.3g} seconds"
                hint = "PLUGIN_CONNECTION_TIMEOUT sets how long it may take."
                raise TransportError(msg, hint, phase="broker") from exc

        channel = Channel(
            connect, scheme=self._ways.scheme, options=self._options, on_lost=self._on_lost
        )
        try:
            with unwrapped():
                async with anyio.create_task_group() as tg:
                    await tg.start(channel.run)
                    session.started(channel)
                    await session.stop_requested.wait()
                    channel.close()
        except (GRPCError, OSError, anyio.BrokenResourceError, anyio.EndOfStream) as exc:
            msg = f"the connection to service {info.service_id} was lost before it was up: {exc}"
            raise TransportError(msg, phase="broker") from exc


async def _stop_when_left(server: BrokeredServer, session: Session[None]) -> None:
    await server.wait_left(WINDOW)
    session.request_stop()
