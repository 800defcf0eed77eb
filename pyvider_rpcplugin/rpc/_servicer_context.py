"""The context objects that servicers written for grpcio get: `grpc.aio`'s, and the blocking one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote

from anyio import from_thread
from anyio.lowlevel import current_token
from grpclib.const import Status

from pyvider_rpcplugin._events import event_logger

from ._grpcio import aio, encoding_of, plain_metadata, split_details, status_of
from ._metadata import encode_metadata
from ._status import CallStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from grpclib.metadata import _Metadata as Metadata

    from ._server_stream import ServerStream

logger = event_logger(__name__)


class Metadatum(NamedTuple):
    """One pair of the metadata that came with a request."""

    key: str
    value: str | bytes


def invocation_metadata(metadata: Metadata | None, user_agent: str | None) -> tuple[Metadatum, ...]:
    """A request's metadata as grpcio gives it, the client's name for itself included."""
    pairs = [] if metadata is None else list(metadata.items())
    if user_agent is not None:
        pairs.append(("user-agent", user_agent))
    return tuple(Metadatum(key, value) for key, value in pairs)


class ServicerContext:
    """The context of a servicer that was written for `grpc.aio`, with its methods.

    Args:
        stream: The call.
    """

    def __init__(self, stream: ServerStream[Any, Any]) -> None:
        self._stream = stream
        self._code: Any = None
        self._status = Status.OK
        self._details = ""
        self._trailing: tuple[Any, ...] = ()
        self._pairs: list[tuple[str, str | bytes]] = []
        self._status_details: Any = None
        self._abortion: Exception | None = None
        self._compress_next = True
        self._callbacks: list[Callable[[], object]] = []
        self.ended = False

    # --- messages ----------------------------------------------------------------------------

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`."""
        message = await self.next_request()
        return aio().EOF if message is None else message

    async def next_request(self) -> Any:
        """The next request; None once the client has sent the last one."""
        self.raise_for_termination()
        message = await self._stream.recv_message()
        self.raise_for_termination()
        return message

    async def write(self, message: Any) -> None:
        """Send one response."""
        self.raise_for_termination()
        compress, self._compress_next = self._compress_next, True
        await self._stream.send_message(message, compress=compress)

    def raise_for_termination(self) -> None:
        """See that the call goes on."""
        if self._abortion is not None:
            raise self._abortion
        if self.done():
            msg = "RPC already finished."
            raise aio().UsageError(msg)

    # --- metadata ----------------------------------------------------------------------------

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """What came with the request."""
        return invocation_metadata(self._stream.metadata, self._stream.user_agent)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the response's headers at once."""
        self.raise_for_termination()
        if self._stream.began:
            msg = "Send initial metadata failed: already sent"
            raise aio().UsageError(msg)
        await self._stream.send_initial_metadata(metadata=plain_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set what is sent at the end."""
        pairs, self._status_details = split_details(plain_metadata(trailing_metadata))
        encode_metadata(pairs)  # Who gives what cannot be sent learns it here.
        self._trailing = tuple(trailing_metadata)
        self._pairs = pairs

    def trailing_metadata(self) -> Any:
        """What will be sent at the end."""
        return self._trailing

    # --- the status --------------------------------------------------------------------------

    def set_code(self, code: Any) -> None:
        """Set the status that the call will end with."""
        self._code = code
        self._status = status_of(code)

    def code(self) -> Any:
        """The status that was set; None if none was."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the status's message."""
        self._details = details

    def details(self) -> str:
        """The status's message."""
        return self._details

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with this status, at once.

        Raises:
            grpc.aio.AbortError: Always.
        """
        if self._abortion is not None:
            msg = "Abort already called!"
            raise aio().UsageError(msg)
        self._abortion = aio().AbortError("Locally aborted.")
        if trailing_metadata or not self._trailing:
            self.set_trailing_metadata(trailing_metadata)
        if details or not self._details:
            self._details = details
        self.set_code(code)
        await self.finish()
        raise self._abortion

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a `grpc.Status`, at once.

        Raises:
            grpc.aio.AbortError: Always.
        """
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def finish(self, status: Status | None = None, details: str | None = None) -> None:
        """Send the trailers: what was set, unless something else is said."""
        message = self._details if details is None else details
        said = CallStatus(
            self._status if status is None else status, message or None, self._status_details
        )
        await self._stream.finish(said, self._pairs)
        self.ended = True

    @property
    def status(self) -> Status:
        """The status that the call will end with."""
        return self._status

    def caused(self, error: BaseException) -> bool:
        """Whether `error` is what `abort` raised, or a task group's of nothing else."""
        if isinstance(error, BaseExceptionGroup):
            return all(self.caused(inner) for inner in error.exceptions)
        return error is self._abortion

    @property
    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._abortion is not None

    # --- compression -------------------------------------------------------------------------

    def set_compression(self, compression: Any) -> None:
        """Compress the responses of this call, where the client takes that."""
        if self._stream.began:
            msg = "Compression setting must be specified before sending initial metadata"
            raise RuntimeError(msg)
        self._stream.set_compression(encoding_of(compression))

    def disable_next_message_compression(self) -> None:
        """Send the next response as it is."""
        self._compress_next = False

    # --- the call ----------------------------------------------------------------------------

    def time_remaining(self) -> float | None:
        """Seconds that are left; None without a deadline."""
        due = self._stream.due
        return None if due is None else due.time_remaining()

    def done(self) -> bool:
        """Whether the status has been sent, or nobody would get it."""
        return self.ended or self._stream.over

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self._stream.cancel_status is not None or self._status is Status.CANCELLED

    def is_active(self) -> bool:
        """Whether the client still waits."""
        return not self.done() and not self.cancelled()

    async def cancel(self) -> None:
        """End the call at once; the client sees it CANCELLED."""
        self.ended = True
        await self._stream.cancel()

    def add_done_callback(self, callback: Callable[[ServicerContext], object]) -> None:
        """Have `callback` called with this context when the call is over."""
        self._callbacks.append(partial(callback, self))

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Have `callback` called when the call is over; False if it is already."""
        if self.done():
            return False
        self._callbacks.append(callback)
        return True

    def run_callbacks(self) -> None:
        """The call is over."""
        self.ended = True
        for callback in self._callbacks:
            try:
                callback()
            except Exception:  # boundary: the call is over, whatever a callback does
                logger.exception("rpc.callback.failed method=%s", self._stream.head.path)

    # --- the peer ----------------------------------------------------------------------------

    def peer(self) -> str:
        """Who calls, as grpcio writes it: `ipv4:127.0.0.1:4711`, `unix:`."""
        address: Any = self._stream.peer.addr()
        if not isinstance(address, tuple):
            return f"unix:{address or ''}"
        host, port = address[:2]
        if ":" in host:
            return f"ipv6:{quote(f'[{host}]:{port}', safe=':')}"
        return f"ipv4:{host}:{port}"

    def auth_context(self) -> dict[str, list[bytes]]:
        """What is known of the client, from its certificate."""
        peer: Any = self._stream.peer
        octets = peer.certificate()
        if octets is None:
            return {
                "transport_security_type": [b"insecure"],
                "security_level": [b"TSI_SECURITY_NONE"],
            }
        from ssl import DER_cert_to_PEM_cert  # noqa: PLC0415 - loaded where it is used

        certificate = peer.cert() or {}
        properties = {
            "transport_security_type": [b"ssl"],
            "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
            "x509_pem_cert": [DER_cert_to_PEM_cert(octets).encode()],
        }
        names = [
            value
            for part in certificate.get("subject", ())
            for key, value in part
            if key == "commonName"
        ]
        alternatives = [str(value) for _, value in certificate.get("subjectAltName", ())]
        if names:
            properties["x509_common_name"] = [name.encode() for name in names]
        if alternatives:
            properties["x509_subject_alternative_name"] = [name.encode() for name in alternatives]
        return properties

    def peer_identity_key(self) -> str | None:
        """The property that says who the client is; None if nothing does."""
        properties = self.auth_context()
        for key in ("x509_subject_alternative_name", "x509_common_name"):
            if key in properties:
                return key
        return None

    def peer_identities(self) -> Iterable[bytes] | None:
        """Who the client is; None if nobody knows."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]


class BlockingContext:
    """The context of a servicer whose methods are plain functions, in a thread each.

    Args:
        context: What it stands for. What needs no event loop is done by it directly.
    """

    def __init__(self, context: ServicerContext) -> None:
        self._context = context
        self._token = current_token()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _call(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        return from_thread.run(function, *args, token=self._token)

    def time_remaining(self) -> float | None:
        """Seconds that are left; None without a deadline."""
        return from_thread.run_sync(self._context.time_remaining, token=self._token)

    def next_request(self) -> Any:
        """The next request; None once the client has sent the last one."""
        return self._call(self._context.next_request)

    def write(self, message: Any) -> None:
        """Send one response."""
        self._call(self._context.write, message)

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with this status, at once.

        Raises:
            grpc.aio.AbortError: Always.
        """
        self._call(self._context.abort, code, details, trailing_metadata)
        raise AssertionError

    def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a `grpc.Status`, at once.

        Raises:
            grpc.aio.AbortError: Always.
        """
        self.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the response's headers at once."""
        self._call(self._context.send_initial_metadata, initial_metadata)

    def cancel(self) -> None:
        """End the call at once; the client sees it CANCELLED."""
        self._call(self._context.cancel)
