"""Brokered connections as streams of the one connection between host and plugin."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport.multiplex import MultiplexedListener, Multiplexer

from ._knocks import Doors
from ._mailboxes import WINDOW
from ._messages import ConnInfo, Knock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import ByteStream, TaskStatus

    from pyvider_rpcplugin.crypto import Credentials
    from pyvider_rpcplugin.transport import StreamListener
    from pyvider_rpcplugin.transport.multiplex import MultiplexedStream

logger = logging.getLogger(__name__)

_MOST_COMPLAINTS = 20
_MOST_GIVEN_UP = 1024


class _OurKnock:
    """A knock of ours: one at a time, since its stream is told from others by nothing else."""

    def __init__(self, service_id: int) -> None:
        self.service_id = service_id
        self.answered = anyio.Event()
        self.stream: MultiplexedStream | None = None
        self.error: str | None = None


class SharedWays:
    """What a broker does where all goes over one connection.

    Args:
        client: Whether this side has made it, as a host does.
        credentials: Those of the main stream; None if it is plain. Each stream has TLS of its own.
        handshake_timeout: Seconds for TLS on an accepted stream.
        default: Gets the streams that nobody has knocked for: the plugin's main server.
    """

    networks: tuple[str, ...] = ()
    announces: bool = False
    say: Callable[[ConnInfo], None]

    def __init__(
        self,
        *,
        client: bool,
        credentials: Credentials | None,
        handshake_timeout: float,
        default: MultiplexedListener | None = None,
    ) -> None:
        self.scheme: str = "http" if credentials is None else "https"
        self._multiplexer: Multiplexer | None = None
        self._client = client
        self._credentials = credentials
        self._handshake_timeout = handshake_timeout
        self._default = default
        self._doors = Doors()
        self._listeners: dict[int, MultiplexedListener] = {}
        self._knock: _OurKnock | None = None
        self._turn = anyio.Lock()
        self._given_up: deque[tuple[int, float]] = deque(maxlen=_MOST_GIVEN_UP)
        self._complaints = 0

    async def run(
        self, stream: ByteStream, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Share the connection until it ends. Cancelling this closes it."""
        self._multiplexer = Multiplexer(stream, client=self._client, on_stream=self._on_stream)
        await self._multiplexer.run(task_status=task_status)

    def open(self) -> MultiplexedStream:
        """Open a stream that nobody was asked about: the main one.

        Raises:
            TransportError: There is no connection, or it is over.
        """
        if self._multiplexer is None:
            msg = "there is no connection yet"
            raise TransportError(msg)
        return self._multiplexer.open()

    async def flush(self) -> None:
        """Wait until all that was said has been sent."""
        if self._multiplexer is not None:
            await self._multiplexer.flush()

    # --- serving -----------------------------------------------------------------------------

    @asynccontextmanager
    async def listen(self, service_id: int) -> AsyncGenerator[tuple[None, StreamListener]]:
        """Be there for streams that are meant for a number, for the length of a block.

        Raises:
            TransportError: The number is being served already.
            SecurityError: This side has no certificate to show.
        """
        if service_id in self._listeners:
            msg = f"service {service_id} is served already"
            raise TransportError(msg, "broker.next_id() gives free numbers.", phase="broker")
        credentials = self._credentials
        if credentials is not None and self._client:
            credentials = credentials.reversed()
        listener = MultiplexedListener()
        self._listeners[service_id] = listener
        try:
            answer = self._doors.open(service_id, anyio.current_time())
            if answer is not None:
                self.say(answer)
            if credentials is None:
                yield None, listener
                return
            from pyvider_rpcplugin.transport import TLSListener  # noqa: PLC0415 - loads ssl

            timeout = self._handshake_timeout
            yield None, TLSListener(listener, credentials, handshake_timeout=timeout)
        finally:
            self._doors.close(service_id)
            del self._listeners[service_id]
            await listener.aclose()

    def _on_stream(self, stream: MultiplexedStream) -> None:
        service_id = self._doors.stream_opened(anyio.current_time())
        listener = self._default if service_id is None else self._listeners.get(service_id)
        if listener is None or not listener.offer(stream):
            if service_id is None and self._complaints < _MOST_COMPLAINTS:
                self._complaints += 1
                logger.error("the other side opened a stream without knocking: refused")
            stream.refuse()

    # --- dialling ----------------------------------------------------------------------------

    async def connect(self, info: ConnInfo) -> ByteStream:
        """Knock, and open a stream once that is answered.

        Raises:
            TransportError: It was not answered within 5 seconds, or refused.
            SecurityError: The other end is not who it should be.
        """
        stream: ByteStream = await self._knock_for(info.service_id)
        credentials = self._credentials
        if credentials is None:
            return stream
        from pyvider_rpcplugin.transport import wrap_client  # noqa: PLC0415 - loads ssl

        return await wrap_client(stream, credentials if self._client else credentials.reversed())

    async def _knock_for(self, service_id: int) -> MultiplexedStream:
        async with self._turn:
            until = anyio.current_time() + WINDOW
            knock = self._knock = _OurKnock(service_id)
            self.say(ConnInfo(service_id, knock=Knock(knock=True)))
            try:
                with anyio.CancelScope(deadline=until):
                    await knock.answered.wait()
            except BaseException:
                if knock.stream is not None:
                    knock.stream.refuse()
                raise
            finally:
                self._knock = None
                if not knock.answered.is_set():
                    self._given_up.append((service_id, anyio.current_time() + WINDOW))
        if knock.stream is not None:
            return knock.stream
        if knock.error is not None:
            msg = f"service {service_id} was refused by the other side: {knock.error[:200]}"
            raise TransportError(msg, phase="broker")
        msg = f"nobody answered the knock on service {service_id} within {WINDOW:g} seconds"
        raise TransportError(msg, "It has to be served under this number.", phase="broker")

    # --- the control stream ------------------------------------------------------------------

    def hear(self, info: ConnInfo) -> bool:
        """Take a knock of the other side, or its answer to ours; False if it is neither."""
        if info.knock is None or not info.knock.knock:
            return False
        if not info.knock.ack:
            answer = self._doors.knocked(info.service_id, anyio.current_time())
            if answer is not None:
                self.say(answer)
            return True
        knock = self._knock
        if knock is None or knock.service_id != info.service_id:
            return self._is_late(info.service_id, info.knock)
        if info.knock.error:
            knock.error = info.knock.error
        else:
            # At once: the other side takes the next stream for this one.
            try:
                knock.stream = self.open()
            except TransportError as exc:
                knock.error = exc.message
        knock.answered.set()
        self._knock = None
        return True

    def _is_late(self, service_id: int, answer: Knock) -> bool:
        """See whether this answers a knock that was given up meanwhile: its stream is due, too."""
        now = anyio.current_time()
        while self._given_up and self._given_up[0][1] <= now:
            self._given_up.popleft()
        for late in self._given_up:
            if late[0] == service_id:
                self._given_up.remove(late)
                if not answer.error:
                    with contextlib.suppress(TransportError):
                        self.open().refuse()
                return True
        return False
