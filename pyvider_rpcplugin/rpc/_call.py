"""One call's two directions on one HTTP/2 stream: what client and server side have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio import lowlevel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.http2 import ErrorCode

from ._compression import ENCODINGS, LARGE_SIZE, MessageEncoding, unpacking_error
from ._messages import LARGEST_MESSAGE, MessageBuffer, MessageTooLarge, message_prefix
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpclib.encoding.base import CodecBase

    from pyvider_rpcplugin._loops import Waiter
    from pyvider_rpcplugin.http2 import H2Stream

    from ._connection import RPCConnection
    from ._metadata import Deadline

# A task that never has to wait lets the others run at least this often.
_BYTES_UNTIL_YIELD = 65_536
_MESSAGES_UNTIL_YIELD = 100
# A message up to this size is sent in one piece with its prefix; from there on, not copying it
# is worth a DATA frame for the prefix.
_JOINED_SIZE = 32_768
_LARGEST_PART = 1 << 18
# So much of messages of the largest size may be here of a connection while they come in.
_LARGEST_MESSAGES_AT_A_TIME = 4
_TOO_MUCH_AT_A_TIME = "too many large messages are coming in at a time"


class MessageChannel:
    """Messages out and in on one stream, under flow control, limits and a deadline.

    At most one task may send and one receive at a time. The owner of the stream (client or server
    side) feeds `on_data` and the like, and says by `failure` that the call has ended early.
    """

    __slots__ = (
        "_codec",
        "_connection",
        "_deadline",
        "_messages_until_yield",
        "_receiver",
        "_sender",
        "_stream",
        "_unyielded",
        "buffer",
        "encoding_in",
        "encoding_out",
        "failure",
        "packed",
        "unwanted",
    )

    def __init__(
        self,
        connection: RPCConnection,
        stream: H2Stream,
        codec: CodecBase,
        deadline: Deadline | None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._codec = codec
        self._deadline = deadline
        self._receiver: Waiter | None = None
        self._sender: Waiter | None = None
        self._unyielded = 0
        self._messages_until_yield = _MESSAGES_UNTIL_YIELD
        self.buffer: MessageBuffer = MessageBuffer(connection.options.max_receive_message_size)
        self.encoding_in: MessageEncoding | None = None
        self.encoding_out: MessageEncoding | None = None
        self.failure: Exception | None = None
        # A large compressed message, which was taken and is for `unpack`.
        self.packed: bytes | None = None
        self.unwanted: bool = False  # the peer has said all and listens no more

    # --- what the connection reports ---------------------------------------------------------

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        """Keep content for who receives; wake them once there is something to take."""
        buffer = self.buffer
        buffer.append(data)
        if end_stream:
            buffer.eof = True
        receiver = self._receiver
        if receiver is not None:
            if buffer.ready:
                receiver.wake()
            elif self.packed is None:
                self._connection.h2.acknowledge(self._stream, self._count_early())

    def on_end(self) -> None:
        """The peer will send nothing more."""
        self.buffer.eof = True
        self.wake_receiver()

    def on_window(self) -> None:
        """More may be sent."""
        if self._sender is not None:
            self._sender.wake()

    def fail(self, error: Exception) -> None:
        """End both directions: whoever waits, or comes later, gets `error`."""
        if self.failure is None:
            self.failure = error
        self.wake_receiver()
        self.on_window()

    def wake_receiver(self) -> None:
        """Let the receiving task look at the state again."""
        if self._receiver is not None:
            self._receiver.wake()

    # --- waiting -----------------------------------------------------------------------------

    async def wait_received(self) -> None:
        """Wait until something came in.

        Raises:
            DeadlineExceeded: The call's deadline passed first.
            anyio.BusyResourceError: Another task receives already.
        """
        self._check_receiver()
        if self._stream.owner is None:
            raise _over()
        self._receiver = waiter = self._connection.new_waiter()
        self._rested()
        # Who waits for the end of the call, while messages are here that nobody takes, gets no
        # more of them.
        if not self.buffer.ready:
            self.credit_early()
        try:
            await wait_until(waiter, self._deadline)
        finally:
            self._receiver = None

    def credit_early(self) -> None:
        """Give back the octets of a message that is still coming in, so that it can."""
        early = self._count_early()
        if early:
            self._acknowledge(early)

    def _count_early(self) -> int:
        """How much of what came may be given back before its message is complete.

        If all of the connection's messages that are coming in hold too much already, this call
        is the one that fails for it.
        """
        connection, limit = self._connection, self.buffer.limit
        if 0 <= limit * _LARGEST_MESSAGES_AT_A_TIME < connection.early:
            self.fail(GRPCError(Status.RESOURCE_EXHAUSTED, _TOO_MUCH_AT_A_TIME))
            return 0
        early = self.buffer.credit_all()
        connection.early += early
        return early

    def _check_receiver(self) -> None:
        if self._receiver is not None:
            action = "receiving from"
            raise anyio.BusyResourceError(action)

    def _check_sender(self) -> None:
        if self._sender is not None:
            action = "sending to"
            raise anyio.BusyResourceError(action)

    async def _wait_sendable(self) -> None:
        self._sender = waiter = self._connection.new_waiter()
        self._rested()
        try:
            if self._connection.has_room:
                await wait_until(waiter, self._deadline)
            elif self._deadline is None:
                await self._connection.wait_for_room(waiter)
            else:
                with anyio.CancelScope(deadline=self._deadline.at) as scope:
                    await self._connection.wait_for_room(waiter)
                if scope.cancelled_caught:
                    raise DeadlineExceeded
        finally:
            self._sender = None

    def _rested(self) -> None:
        self._unyielded = 0
        self._messages_until_yield = _MESSAGES_UNTIL_YIELD

    async def _maybe_yield(self, size: int) -> None:
        self._unyielded += size
        self._messages_until_yield -= 1
        if self._unyielded >= _BYTES_UNTIL_YIELD or self._messages_until_yield <= 0:
            await self._yield()

    async def _yield(self) -> None:
        self._rested()
        await lowlevel.checkpoint()
        # A task that never has to wait must not outlive its deadline for that.
        if self._deadline is not None and self._deadline.time_remaining() <= 0:
            raise DeadlineExceeded

    # --- receiving ---------------------------------------------------------------------------

    def take_message(self, message_type: Any) -> Any:
        """The next message if it is here; None if it is not, or if it is `packed`.

        Raises:
            GRPCError: It is too large, malformed, or cannot be decoded.
            anyio.BusyResourceError: Another task receives already.
        """
        self._check_receiver()
        if self.packed is not None:  # Who waited for that was cancelled.
            return None
        early = self.buffer.credited
        try:
            taken = self.buffer.take()
        except MessageTooLarge as error:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, str(error)) from None
        if taken is None:
            return None
        compressed, data, credit = taken
        if early:
            self._connection.early -= early - self.buffer.credited
        if credit:
            self._acknowledge(credit)
        if compressed:
            small = self._unpack_small(data)
            if small is None:
                self.packed = data
                return None
            data = small
        return decode_message(self._codec, data, message_type)

    async def unpack(self, message_type: Any) -> Any:
        """The message that is `packed`.

        Raises:
            GRPCError: It is too large, malformed, or cannot be decoded, or the call is over.
            DeadlineExceeded: The call's deadline passed first.
            anyio.BusyResourceError: Another task receives already.

        Cancellation:
            Leaves it packed.
        """
        self._check_receiver()
        packed: Any = self.packed
        self._receiver = self._connection.new_waiter()  # so that nobody else receives meanwhile
        try:
            data = await self._unpack(packed)
        except GRPCError:
            self.packed = None
            raise
        finally:
            self._receiver = None
        self.packed = None
        if self._stream.owner is None:
            raise _over()
        self._rested()
        return decode_message(self._codec, data, message_type)

    async def _unpack(self, packed: bytes) -> bytes:
        from ._packing import unpack  # noqa: PLC0415 - only where messages are compressed

        connection = self._connection
        encoding: Any = self.encoding_in
        if connection.unpacking is None:
            connection.unpacking = anyio.Lock()
        limit = connection.options.max_receive_message_size
        return await unpack(encoding, packed, limit, self._deadline, connection.unpacking)

    def take_only(self, message_type: Any) -> Any:
        """The message, if nothing else is here; None if something is, and nothing is taken.

        Raises:
            GRPCError: It cannot be decoded.
        """
        return self.take_message(message_type) if self.buffer.holds_one else None

    def _acknowledge(self, size: int) -> None:
        h2 = self._connection.h2
        before = h2.output_size
        h2.acknowledge(self._stream, size)
        if h2.output_size > before:
            self._connection.flush()

    def _unpack_small(self, data: bytes) -> bytes | None:
        """What a compressed message is, if it is small."""
        if self.encoding_in is None:
            raise GRPCError(Status.INTERNAL, "a compressed message without a grpc-encoding")
        limit = self._connection.options.max_receive_message_size
        try:
            return self.encoding_in.decompress_small(data, limit)
        except (OverflowError, ValueError) as error:
            raise unpacking_error(error) from None

    async def after_message(self) -> None:
        """Let others run, now and then, when messages keep coming."""
        self._messages_until_yield -= 1
        if self._messages_until_yield <= 0:
            await self._yield()

    # --- sending -----------------------------------------------------------------------------

    def use_codec(self, codec: CodecBase) -> None:
        """Read and write messages with `codec` from now on."""
        self._codec = codec

    def encode(
        self, message: Any, message_type: Any, *, compress: bool = True
    ) -> tuple[bytes, bytes]:
        """`message` as it is sent, or with an empty prefix if it is for `pack`."""
        return encode_message(
            message,
            message_type,
            self._codec,
            self._connection.options.max_send_message_size,
            self.encoding_out if compress else None,
        )

    async def pack(self, data: bytes) -> tuple[bytes, bytes]:
        """A large message as it is sent, compressed.

        Raises:
            DeadlineExceeded: The call's deadline passed first.
            anyio.BusyResourceError: Another task sends already.
        """
        self._check_sender()
        encoding: Any = self.encoding_out
        self._sender = self._connection.new_waiter()  # so that nobody else sends meanwhile
        try:
            return await self.pack_message(encoding, data, self._deadline)
        finally:
            self._sender = None

    @staticmethod
    async def pack_message(
        encoding: MessageEncoding, data: bytes, deadline: Deadline | None
    ) -> tuple[bytes, bytes]:
        """The same for a call that has not begun."""
        from ._packing import pack  # noqa: PLC0415 - only where messages are compressed

        return await pack(encoding, data, deadline)

    def send_now(self, prefix: bytes, message: bytes, *, end_stream: bool) -> bool:
        """Queue a message if all of it may be sent at once; say whether that was so."""
        if self._sender is not None or len(message) > _JOINED_SIZE:
            return False
        return self._send_now(prefix + message, end_stream=end_stream)

    def _send_now(self, data: bytes, *, end_stream: bool) -> bool:
        """Send all of `data` if the windows and the buffer have room; say whether they had."""
        connection = self._connection
        h2 = connection.h2
        if h2.sendable(self._stream) < len(data) or not connection.has_room:
            return False
        h2.send_data(self._stream, data, end_stream=end_stream)
        return True

    async def send(
        self, prefix: bytes, message: bytes, *, end_stream: bool = False, flush: bool = True
    ) -> None:
        """Send a message, as the peer's windows let us; nothing if it is `unwanted`.

        Args:
            prefix: Its length prefix.
            message: Its octets.
            end_stream: Whether nothing follows.
            flush: Whether it should leave now. What follows at once can leave together with it.

        Cancellation:
            Where a part was sent, the stream is reset: the peer could not make sense of the rest.
        """
        self._check_sender()
        if not self._sending_makes_sense():
            return
        size = len(prefix) + len(message)
        if size <= _JOINED_SIZE:
            data = prefix + message
            if self._send_now(data, end_stream=end_stream):
                if flush:
                    self._connection.flush()
                    await self._maybe_yield(size)
                return
            await self._send_in_parts((data,), end_stream=end_stream)
        else:
            await self._send_in_parts((prefix, message), end_stream=end_stream)

    async def _send_in_parts(self, pieces: Sequence[bytes], *, end_stream: bool) -> None:
        h2, stream = self._connection.h2, self._stream
        begun = False
        try:
            for piece in pieces:
                view = memoryview(piece)
                last_piece = piece is pieces[-1]
                while True:
                    size = await self._wait_size(len(view))
                    if size is None:
                        return
                    last = last_piece and size == len(view)
                    h2.send_data(stream, view[:size], end_stream=end_stream and last)
                    begun = True
                    view = view[size:]
                    if last_piece:
                        self._connection.flush()
                    if not view:
                        break
        except BaseException:
            if begun:
                self.reset(ErrorCode.CANCEL)
            raise

    async def _wait_size(self, size: int) -> int | None:
        """Wait until some of `size` octets may be sent, and return how many; None: none at all."""
        flushed = False
        while True:
            if not self._sending_makes_sense():
                return None
            allowed = min(size, self._connection.h2.sendable(self._stream), _LARGEST_PART)
            if (allowed > 0 or not size) and self._connection.has_room:
                return max(allowed, 0)
            if flushed:
                await self._wait_sendable()
            else:
                # That may make room at once; then nobody would wake a task that waits for it.
                self._connection.flush()
            flushed = not flushed

    def _sending_makes_sense(self) -> bool:
        if self.failure is not None:
            raise self.failure
        if not self._stream.closed:
            return not self.unwanted
        if self._stream.owner is None:
            raise _over()
        return False

    def reset(self, code: ErrorCode) -> None:
        """End the stream at once, and give back what was received and not taken."""
        self._connection.h2.reset_stream(self._stream, code)
        self.discard()
        self._connection.flush()

    def flush(self) -> None:
        """See to it that what was queued is sent, without waiting."""
        self._connection.flush()

    def close(self) -> None:
        """Nobody will use the call any more: end what has not ended by itself."""
        self._stream.owner = None
        self.failure = None  # Its traceback leads back here: a cycle.
        self.wake_receiver()  # It may be another task than the one that is done with the call.
        if not self._stream.closed:
            self.reset(ErrorCode.CANCEL)
        elif self._stream.unconsumed or self.buffer.credited:
            self.discard()

    def drop(self) -> None:
        """Let go of what was received, and let the peer go on: nobody wants it."""
        early = self.buffer.credit_all()
        self._connection.early -= self.buffer.credited - early
        self.buffer.clear()
        if early:
            self._acknowledge(early)

    def discard(self) -> None:
        """Give back what was received and not taken: nobody will."""
        self._connection.early -= self.buffer.credited
        self.buffer.clear()
        h2 = self._connection.h2
        before = h2.output_size
        h2.release(self._stream)
        if h2.output_size > before:
            self._connection.flush()


def _over() -> GRPCError:
    return GRPCError(Status.CANCELLED, "the call is over")


async def wait_until(waiter: Waiter, deadline: Deadline | None) -> None:
    """Wait to be woken.

    Raises:
        DeadlineExceeded: The deadline passed first.
    """
    if deadline is None:
        await waiter.wait()
        return
    with anyio.CancelScope(deadline=deadline.at) as scope:
        await waiter.wait()
    if scope.cancelled_caught:
        raise DeadlineExceeded


def decode_message(codec: CodecBase, data: bytes, message_type: Any) -> Any:
    """The message of these octets.

    Raises:
        GRPCError: INTERNAL, they are none.
    """
    try:
        return codec.decode(data, message_type)
    except GRPCError:
        raise
    except Exception as error:
        msg = f"a message that is no {getattr(message_type, '__name__', message_type)}: {error}"
        raise GRPCError(Status.INTERNAL, msg) from error


def encode_message(
    message: Any,
    message_type: Any,
    codec: CodecBase,
    limit: int,
    encoding: MessageEncoding | None,
) -> tuple[bytes, bytes]:
    """One message: its prefix and its octets.

    The prefix is empty if the message is still to be compressed, as it is large: see `pack`.

    Raises:
        GRPCError: RESOURCE_EXHAUSTED, it is larger than `limit` octets (-1: 4 GiB).
    """
    data = codec.encode(message, message_type)
    if len(data) > (limit if limit >= 0 else LARGEST_MESSAGE):
        most = limit if limit >= 0 else LARGEST_MESSAGE
        msg = f"a message of {len(data)} octets, at most {most} may be sent"
        raise GRPCError(Status.RESOURCE_EXHAUSTED, msg)
    if encoding is not None and data:
        if len(data) > LARGE_SIZE:
            return b"", data
        data = encoding.compress(data)
        return message_prefix(len(data), compressed=True), data
    return message_prefix(len(data)), data


def encoding_named(name: str | None) -> MessageEncoding | None:
    """The encoding a grpc-encoding field names; None for identity.

    Raises:
        GRPCError: UNIMPLEMENTED, we do not have it.
    """
    if name is None or name == "identity":
        return None
    try:
        return ENCODINGS[name]
    except KeyError:
        msg = f"messages in the encoding {name[:40]!r}, which is not supported"
        raise GRPCError(Status.UNIMPLEMENTED, msg) from None
