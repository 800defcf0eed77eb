"""TLS over any byte stream: OpenSSL computes between two buffers in memory, this moves the bytes.

Whatever is sent is encrypted at once, in the order of the calls, and only then handed to the stream
below; so encrypting needs no await, and `send_nowait` stays what it is on a plain socket.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast, final

import anyio
from anyio import lowlevel
from anyio.abc import ByteStream

from pyvider_rpcplugin.crypto.contexts import require_certificate, require_h2
from pyvider_rpcplugin.exception import SecurityError, TransportError
from pyvider_rpcplugin.transport.base import StreamListener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import TaskGroup

    from pyvider_rpcplugin.crypto.credentials import Credentials

__all__ = ["TLSListener", "TLSRefusedError", "TLSStream", "wrap_client", "wrap_server"]

logger = logging.getLogger(__name__)

# OpenSSL gives one record at a time, and none is larger.
_LARGEST_RECORD = 16_384
_LARGEST_READ = 262_144
# Larger pieces cost more: memory of that size is fetched from the system, and given back, each time.
_PIECE = 65_536

_BYTES_UNTIL_YIELD = 65_536
_CALLS_UNTIL_YIELD = 100

_GOODBYE_TIMEOUT = 0.25
_HANDSHAKE_TIMEOUT = 30.0
_MOST_HANDSHAKES = 64
_OTHERS_NEED_ITS_PLACE = "too many TLS handshakes at a time"
_SERVER_NAME = "localhost"


class TLSRefusedError(SecurityError, anyio.BrokenResourceError):
    """The server ended the connection instead of saying anything.

    Under TLS 1.3 a client has finished its handshake before the server judges its certificate, so
    it learns from its first `receive` that it was refused. For whoever deals with streams it is a
    broken one like any other.
    """


async def wrap_client(
    stream: ByteStream,
    tls: Credentials | ssl.SSLContext,
    *,
    server_hostname: str | None = None,
) -> TLSStream:
    """Speak TLS as the client: shake hands, and check that it is HTTP/2 with the right peer.

    Args:
        stream: The connection. It belongs to the result, and is closed if there is none.
        tls: Credentials, or a context of the caller's own.
        server_hostname: The name to look for in the server's certificate, instead of the one in
            the credentials (`localhost` with a context).

    Returns:
        The encrypted stream; it has `send_nowait` if `stream` has it.

    Raises:
        SecurityError: One side does not accept the other.
        TransportError: The connection was lost meanwhile.

    Cancellation:
        Closes the connection. It may take as long as the peer likes: put it into a scope with a
        deadline.
    """
    return await _wrap(stream, tls, server_hostname=server_hostname, server_side=False)


async def wrap_server(stream: ByteStream, tls: Credentials | ssl.SSLContext) -> TLSStream:
    """Speak TLS as the server: shake hands, and check that it is HTTP/2 with the right peer.

    Arguments, result, errors and cancellation are those of `wrap_client`.
    """
    return await _wrap(stream, tls, server_hostname=None, server_side=True)


async def _wrap(
    stream: ByteStream,
    tls: Credentials | ssl.SSLContext,
    *,
    server_hostname: str | None,
    server_side: bool,
) -> TLSStream:
    try:
        if isinstance(tls, ssl.SSLContext):
            context, pinned, name = tls, None, _SERVER_NAME
        else:
            context, pinned, name = tls.context(), tls.pinned, tls.server_hostname
        kind = _PromptTLSStream if hasattr(stream, "send_nowait") else TLSStream
        wrapped = kind(
            stream, context, None if server_side else server_hostname or name, server_side
        )
        await wrapped.shake_hands()
        require_h2(wrapped.ssl_object)
        if pinned is not None:
            require_certificate(wrapped.ssl_object, pinned)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return wrapped


class TLSStream(ByteStream):
    """An encrypted connection; `wrap_client` and `wrap_server` make it.

    One task may receive and another one send at the same time.

    Ownership:
        Closing it closes the stream below.
    """

    def __init__(
        self,
        stream: ByteStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        server_side: bool,
    ) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object: ssl.SSLObject = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._read = self.ssl_object.read
        self._write = self.ssl_object.write
        self._peer = "client" if server_side else "server"
        self._may_be_refused = False
        # Encrypted, taken from OpenSSL, and not yet with the stream below.
        self._unsent = b""
        # The last byte of what send_nowait encrypted but could not hand on: it was reported as
        # not taken, so that its caller comes again.
        self._owed = b""
        self._receiving = False
        self._sending = False
        self._closed = False
        self._torn = False
        self._ended = False
        self._more = False
        self._broken = False
        self._refusal: SecurityError | None = None
        self._given_bytes = 0
        self._given_calls = 0

    # --- the handshake ---------------------------------------------------------------------

    async def shake_hands(self) -> None:
        """Do the handshake, once.

        Raises:
            SecurityError: One side does not accept the other.
            TransportError: The connection was lost meanwhile.
        """
        connection = self.ssl_object
        while True:
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except (ssl.SSLError, ssl.CertificateError) as error:
                # The alert tells the peer what this side thinks of it.
                await self._say_goodbye()
                raise _refusal(error, self._peer, connection) from error
            else:
                done = True
            try:
                if self._outgoing.pending:
                    await self._stream.send(self._outgoing.read())
                if done:
                    break
                self._incoming.write(await self._stream.receive(_PIECE))
            except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as error:
                msg = f"the {self._peer} closed the connection during the TLS handshake"
                hint = "It may have ended, or not speak TLS, or not accept this side's certificate."
                raise TransportError(msg, hint, phase="tls") from error
        is_client = not connection.server_side
        self._may_be_refused = is_client and connection.version() == "TLSv1.3"
        self._more = True

    async def _say_goodbye(self) -> None:
        """Send what OpenSSL has left to say, if the peer takes it soon."""
        data = self._unsent + self._outgoing.read()
        self._unsent = b""
        if data:
            with (
                suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError),
                anyio.move_on_after(_GOODBYE_TIMEOUT),
            ):
                await self._stream.send(data)

    @property
    def below(self) -> ByteStream:
        """The stream that carries it."""
        return self._stream

    def detach(self) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """Give away what it computes with: after the handshake, before anything else.

        The stream below is the caller's then.
        """
        self._closed = True
        return self.ssl_object, self._incoming, self._outgoing

    # --- receiving -------------------------------------------------------------------------

    async def receive(self, max_bytes: int = _LARGEST_READ) -> bytes:
        """Take what has arrived, or wait for it.

        Raises:
            anyio.EndOfStream: The peer has said that nothing more comes.
            anyio.BrokenResourceError: The connection was lost, or cut without a word.
            TLSRefusedError: The server did so before it said anything.

        Cancellation:
            Safe: nothing that was received is lost.
        """
        if self._receiving:
            action = "receiving from"
            raise anyio.BusyResourceError(action)
        if self._closed:
            raise anyio.ClosedResourceError
        if max_bytes < 1:
            msg = "max_bytes must be positive"
            raise ValueError(msg)
        self._receiving = True
        try:
            # The stream below yields by itself, but what is here already never gets there.
            if self._given_bytes >= _BYTES_UNTIL_YIELD or self._given_calls >= _CALLS_UNTIL_YIELD:
                self._given_bytes = self._given_calls = 0
                await lowlevel.checkpoint()
            while True:
                if self._more:
                    data = self._decrypt(max_bytes)
                    if data:
                        self._given_bytes += len(data)
                        self._given_calls += 1
                        return data
                if self._ended:
                    raise anyio.EndOfStream
                if self._broken:
                    raise self._reading_failure()
                try:
                    self._incoming.write(await self._stream.receive(_PIECE))
                except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as error:
                    raise self._cut_short() from error
                self._more = True
                self._given_bytes = self._given_calls = 0
        finally:
            self._receiving = False

    async def feed(self, take: Callable[[bytes], bool]) -> None:
        """Hand all that arrives to a function, until that wants no more.

        Arguments and cancellation are those of `SocketStream.feed`, errors those of `receive`.
        """
        below: Any = getattr(self._stream, "feed", None)
        while take(await self.receive()):
            if below is not None and not self._more:
                await self._feed(below, take)
                return

    async def _feed(
        self, below: Callable[..., Awaitable[None]], take: Callable[[bytes], bool]
    ) -> None:
        enough = False

        def taken(encrypted: bytes) -> bool:
            nonlocal enough
            self._incoming.write(encrypted)
            self._more = True
            while self._more and not enough:
                data = self._decrypt(_LARGEST_READ)
                enough = bool(data) and not take(data)
            return not (enough or self._ended or self._broken)

        self._receiving = True
        try:
            await below(taken)
        except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as error:
            raise self._cut_short() from error
        finally:
            self._receiving = False
        if enough:
            return
        if self._ended:
            raise anyio.EndOfStream
        raise self._reading_failure()

    def _cut_short(self) -> Exception:
        """What a connection that ended is to who reads: TLS has not said that this is the end."""
        if self._closed:
            return anyio.ClosedResourceError()
        self._broken = True
        return self._reading_failure()

    def _decrypt(self, max_bytes: int) -> bytes:
        """Take the records that have arrived whole; nothing if there is none."""
        read, incoming = self._read, self._incoming
        pieces: list[bytes] = []
        room = max_bytes
        try:
            while room > 0:
                piece = read(min(room, _LARGEST_RECORD))
                if not piece:
                    self._ended = True
                    self._more = False
                    break
                pieces.append(piece)
                room -= len(piece)
                # A record may have more than was asked for.
                if not incoming.pending and not (room <= 0 and self.ssl_object.pending()):
                    self._more = False
                    break
        except ssl.SSLWantReadError:
            self._more = False
        except ssl.SSLError as error:
            self._more = False
            self._broken = True
            if self._may_be_refused and not pieces:
                self._refusal = _refusal(error, self._peer, self.ssl_object)
        if pieces:
            self._may_be_refused = False
        if self._outgoing.pending:
            self._push_replies()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _push_replies(self) -> None:
        """Send what TLS itself answers; it may as well go out with what is sent next."""

    def _reading_failure(self) -> Exception:
        if not self._may_be_refused:
            return anyio.BrokenResourceError()
        if self._refusal is not None:
            return TLSRefusedError(self._refusal.message, self._refusal.hint, phase="tls")
        msg = "the server closed the connection after the TLS handshake, without a word"
        hint = "It may not accept this side's certificate, or it has ended."
        return TLSRefusedError(msg, hint, phase="tls")

    # --- sending ---------------------------------------------------------------------------

    async def send(self, item: bytes) -> None:
        """Send all of it.

        Cancellation:
            A part of it may have been sent: after that only closing makes sense.
        """
        self._check_sending()
        self._sending = True
        try:
            rest = memoryview(item)
            if self._owed and rest:
                rest = self._pay(rest)
            while rest or self._unsent or self._outgoing.pending:
                if rest:
                    rest = rest[self._encrypt(rest[:_PIECE]) :]
                data = self._take_encrypted()
                try:
                    await self._stream.send(data)
                except BaseException as error:
                    # The peer could not make sense of anything that came after a gap.
                    self._torn = True
                    if self._closed and isinstance(error, anyio.BrokenResourceError):
                        raise anyio.ClosedResourceError from error
                    raise
        finally:
            self._sending = False

    def _check_sending(self) -> None:
        if self._sending:
            action = "sending to"
            raise anyio.BusyResourceError(action)
        if self._closed:
            raise anyio.ClosedResourceError
        if self._torn:
            raise anyio.BrokenResourceError

    def _pay(self, data: memoryview) -> memoryview:
        """Leave out what is encrypted already."""
        if bytes(data[:1]) != self._owed:
            msg = "what send_nowait did not take has to be sent before anything else"
            raise ValueError(msg)
        self._owed = b""
        return data[1:]

    def _encrypt(self, data: bytes | memoryview) -> int:
        try:
            return self._write(data)
        except ssl.SSLError as error:  # also where the peer wants to negotiate anew
            self._torn = True
            raise anyio.BrokenResourceError from error

    def _take_encrypted(self) -> bytes:
        data = self._outgoing.read()
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        return data

    async def send_eof(self) -> NoReturn:
        """Not to be had: OpenSSL's way to end one direction may lose what arrives in the other."""
        msg = "an encrypted connection cannot be closed in one direction only"
        raise NotImplementedError(msg)

    # --- the end ---------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Tell the peer that this is the end, if it listens, and close the stream below."""
        if self._closed:
            await self._stream.aclose()
            return
        self._closed = True
        try:
            if not self._sending and not self._torn:
                # It would like to wait for the peer's word too.
                with suppress(ssl.SSLError, ValueError):
                    self.ssl_object.unwrap()
                await self._say_goodbye()
        finally:
            await self._stream.aclose()

    # --- what else is known ----------------------------------------------------------------

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of `anyio.streams.tls.TLSAttribute`, and those of the stream below."""
        from anyio.streams.tls import TLSAttribute  # noqa: PLC0415 - only for who asks

        names: Any = TLSAttribute
        connection = self.ssl_object
        attributes: dict[Any, Callable[[], Any]] = {
            names.alpn_protocol: connection.selected_alpn_protocol,
            names.channel_binding_tls_unique: connection.get_channel_binding,
            names.cipher: connection.cipher,
            names.peer_certificate: connection.getpeercert,
            names.peer_certificate_binary: lambda: connection.getpeercert(True),
            names.server_side: lambda: connection.server_side,
            names.shared_ciphers: lambda: (
                connection.shared_ciphers() if connection.server_side else None
            ),
            names.ssl_object: lambda: connection,
            names.standard_compatible: lambda: True,
            names.tls_version: connection.version,
        }
        return {**cast("Any", self._stream).extra_attributes, **attributes}

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.ssl_object.version() or "handshake"
        return f"<TLSStream {state} {self._stream!r}>"


@final
class _PromptTLSStream(TLSStream):
    """An encrypted connection over a stream that has `send_nowait`, which so has it too."""

    def __init__(
        self,
        stream: ByteStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        server_side: bool,
    ) -> None:
        super().__init__(stream, context, server_hostname, server_side)
        self._send_now: Callable[[bytes], int] = cast("Any", stream).send_nowait

    def send_nowait(self, data: bytes) -> int:
        """Encrypt, and send what the stream below takes right now.

        What it does not take is kept here. Then at least one byte is reported as not taken: who
        called has to send the rest, and nothing else, next.

        Returns:
            The number of bytes taken, 0 if it would have to wait.

        Raises:
            anyio.BusyResourceError: A `send` is under way: these bytes would land in its middle.
            anyio.BrokenResourceError: The connection is lost.
            anyio.ClosedResourceError: The stream was closed.
        """
        self._check_sending()
        if (self._unsent or self._outgoing.pending) and not self._push():
            return 0
        size = len(data)
        if not self._owed and size <= _PIECE:
            # As good as always.
            if not size:
                return 0
            self._encrypt(data)
            if self._push():
                return size
        else:
            rest = memoryview(data)
            if self._owed and rest:
                rest = self._pay(rest)
            while rest:
                rest = rest[self._encrypt(rest[:_PIECE]) :]
                if not self._push():
                    if rest:
                        return size - len(rest)
                    break
            else:
                return size
        self._owed = bytes(data[-1:])
        return size - 1

    def _push(self) -> bool:
        """Hand what is encrypted to the stream below; whether it took all."""
        data = self._take_encrypted()
        if not data:
            return True
        try:
            sent = self._send_now(data)
        except BaseException:
            self._torn = True
            raise
        if sent == len(data):
            return True
        self._unsent = data[sent:]
        return False

    def _push_replies(self) -> None:
        if not self._sending and not self._torn:
            # Who reads learns of a lost connection by reading.
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._push()

    async def _say_goodbye(self) -> None:
        # A peer that reads has room for it. For any other one there is nothing to wait for.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._push()


@final
class TLSListener(StreamListener):
    """Accepts connections from another listener and shakes hands on each.

    Args:
        listener: Where connections come from. Closing this one closes it.
        tls: Credentials, or a context of the caller's own.
        handshake_timeout: Seconds that a client may take.
    """

    def __init__(
        self,
        listener: StreamListener,
        tls: Credentials | ssl.SSLContext,
        *,
        handshake_timeout: float = _HANDSHAKE_TIMEOUT,
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._timeout = handshake_timeout
        # Those that are under way, the oldest first, and why each was given up.
        self._handshakes: dict[anyio.CancelScope, str] = {}
        self._closing = False

    @property
    def address(self) -> str:
        """Where it listens, in the form that a handshake line carries."""
        return self._listener.address

    async def accept(self) -> TLSStream:
        """Wait for the next connection that gets through its handshake.

        While one client shakes hands, no other one is served: `serve` does better.
        """
        while True:
            stream = await self._shake_hands(await self._listener.accept())
            if stream is not None:
                return stream

    async def serve(
        self, handler: Callable[[Any], Awaitable[object]], task_group: TaskGroup | None = None
    ) -> None:
        """Run `handler(stream)` as a task for every connection that gets through its handshake.

        Who does not is one line in the log. The rest is as with any listener.
        """

        async def handle(stream: ByteStream) -> None:
            encrypted = await self._shake_hands(stream)
            if encrypted is not None:
                async with encrypted:
                    await handler(encrypted)

        await self._listener.serve(handle, task_group)

    async def _shake_hands(self, stream: ByteStream) -> TLSStream | None:
        reason = f"no TLS handshake within {self._timeout:g} seconds"
        with anyio.move_on_after(self._timeout) as scope:
            self._handshakes[scope] = reason
            if len(self._handshakes) > _MOST_HANDSHAKES:
                self._give_up_oldest()
            try:
                return await wrap_server(stream, self._tls)
            except (SecurityError, TransportError) as error:
                reason = error.message
            finally:
                given_up = self._handshakes.pop(scope, _OTHERS_NEED_ITS_PLACE)
        if scope.cancelled_caught:
            reason = given_up
        if not self._closing:
            logger.warning("refused a connection to %s: %s", self.address, reason)
        return None

    def _give_up_oldest(self) -> None:
        """Make room: so nobody is kept out by those that connect and do not get through."""
        oldest = next(iter(self._handshakes))
        del self._handshakes[oldest]
        oldest.cancel()

    async def aclose(self) -> None:
        """Stop accepting, and give up the handshakes that are under way. Never raises."""
        self._closing = True
        for scope in list(self._handshakes):
            scope.cancel()
        await self._listener.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the listener below."""
        below: Any = self._listener
        attributes: Mapping[Any, Callable[[], Any]] = below.extra_attributes
        return attributes

    def __repr__(self) -> str:
        return f"<TLSListener {self._listener!r}>"


# --- what went wrong, in words ---------------------------------------------------------------

_NO_TLS = frozenset(
    {
        "BAD_RECORD_TYPE",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "NOT_SSL_RECORD",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "WRONG_VERSION_NUMBER",
    }
)
_TOO_OLD = frozenset(
    {"NO_PROTOCOLS_AVAILABLE", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"}
)

# By OpenSSL's numbers for why a certificate is not accepted.
_VERIFY_HINTS = {
    9: "The clock of one of the machines may be wrong.",
    10: "It has to be replaced.",
    18: "It is signed by itself: give it, or who should have signed it, as one whom to trust.",
    19: "Its chain ends in a certificate that is not among those whom to trust.",
    20: "Who signed it is not among those whom to trust.",
    62: "The certificate has to bear the name that it is looked for under.",
    64: "The certificate has to bear the address that it is looked for under.",
}


def _refusal(error: Exception, peer: str, connection: ssl.SSLObject) -> SecurityError:
    """Say what OpenSSL's error means, and what to do about it."""
    reason = getattr(error, "reason", None) or ""
    words = reason.lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        msg = f"the {peer}'s certificate is not accepted: {error.verify_message}"
        hint = _VERIFY_HINTS.get(error.verify_code, "It has to be one that this side trusts.")
    elif reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        msg = f"the {peer} showed no certificate, but needs one"
        hint = "Somebody else's program may have found the address; a host shows its own."
    elif reason in _NO_TLS:
        msg = f"the {peer} does not speak TLS"
        hint = "TLS is on for one side only, or the two mean different things by it."
    elif reason in _TOO_OLD:
        msg = f"the {peer} speaks only versions of TLS that are too old"
        hint = "TLS 1.2 is the oldest that is accepted."
    elif "_ALERT_" in reason:
        words = words.partition(" alert ")[2]
        msg = f"the {peer} refused the connection: {words}"
        hint = "The other side's log may say more; mostly it does not accept this side's "
        hint += "certificate."
    elif words:
        msg = f"the TLS handshake with the {peer} failed: {words}"
        hint = "Both sides need a version, a cipher and a kind of certificate in common."
    else:
        msg = f"the TLS handshake with the {peer} failed: {type(error).__name__}"
        hint = "The other side's log may say more."
    if connection.server_side is False and "unknown ca" in words:
        hint = "The server does not know who signed this side's certificate."
    return SecurityError(msg, hint, phase="tls")
