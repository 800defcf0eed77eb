"""One call of a plugin's method, with JSON in and out."""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec
from grpclib.const import Cardinality

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.protocol.typed._formats import MSGPACK

from ._reflect import Raw, catalogue_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping

    from pyvider_rpcplugin.client import RPCPluginClient

    from ._reflect import Catalogue, Method, Service

Schema = dict[str, Any]

KINDS = {
    "unary_unary": Cardinality.UNARY_UNARY,
    "unary_stream": Cardinality.UNARY_STREAM,
    "stream_unary": Cardinality.STREAM_UNARY,
    "stream_stream": Cardinality.STREAM_STREAM,
}


async def call(
    client: RPCPluginClient,
    name: str,
    messages: AsyncIterable[str],
    tell: Callable[[str], object],
    *,
    deadline: float | None,
    metadata: Mapping[str, str],
) -> None:
    """Call a method.

    Args:
        client: The plugin's, started.
        name: `service/method`.
        messages: The requests, each one JSON. A typed method's first one is the object of its
            arguments; those after it are the items of the argument that it takes as a stream.
        tell: Is called with each reply, as one line of JSON.
        deadline: Seconds that it may take.
        metadata: What is sent along.

    Raises:
        RPCPluginError: There is no such method, or a message does not fit.
        GRPCError: It failed.
    """
    found = await catalogue_of(client)
    service, method = found.find(name)
    write, read = forms(found, service, method)
    kind = KINDS[method.kind]
    channel: Any = client.grpc_channel
    stream = channel.request(
        f"/{service.name}/{method.name}",
        kind,
        Raw,
        Raw,
        timeout=deadline,
        metadata=metadata or None,
        codec=codec_of(service),
    )
    async with stream:
        if not method.kind.startswith("stream_"):
            await _send_one(stream, messages, write)
            async for reply in stream:
                tell(read(reply))
            return
        await stream.send_request()
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(_send_all, stream, messages, write)
                async for reply in stream:
                    tell(read(reply))
                # It may have ended without having heard all.
                tg.cancel_scope.cancel()


async def _send_one(
    stream: Any, messages: AsyncIterable[str], write: Callable[[str, int], bytes]
) -> None:
    given = [text async for text in messages]
    if len(given) > 1:
        msg = f"the method takes one message, and not {len(given)}"
        raise RPCPluginError(msg, phase="call")
    await stream.send_message(Raw(write(given[0] if given else "{}", 0)), end=True)


async def _send_all(
    stream: Any, messages: AsyncIterable[str], write: Callable[[str, int], bytes]
) -> None:
    number = 0
    async for text in messages:
        await stream.send_message(Raw(write(text, number)))
        number += 1
    await stream.end()


def codec_of(service: Service) -> Any:
    """How its messages are written; None: as the channel's are."""
    return MSGPACK if service.form == "typed" else None


def forms(
    found: Catalogue, service: Service, method: Method
) -> tuple[Callable[[str, int], bytes], Callable[[bytes], str]]:
    """What writes the requests of a method, and what reads its replies."""
    if service.form == "typed":
        return _typed_writer(method), _typed_text
    if service.form == "unknown":
        msg = f"nothing is known of the messages of {service.name}: it has no reflection"
        raise RPCPluginError(msg, phase="call")
    from google.protobuf import json_format  # noqa: PLC0415 - takes its time

    request, reply = found.message_types(service, method)

    def write(text: str, _: int) -> bytes:
        try:
            message = json_format.Parse(text, request())
        except json_format.ParseError as exc:
            msg = f"this is no {request.DESCRIPTOR.full_name}: {exc}"
            raise RPCPluginError(msg, phase="call") from None
        data: bytes = message.SerializeToString()
        return data

    def read(data: bytes) -> str:
        said = json_format.MessageToDict(reply.FromString(data), preserving_proto_field_name=True)
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))

    return write, read


def _typed_writer(method: Method) -> Callable[[str, int], bytes]:
    schema = method.schema or {}

    def write(text: str, number: int) -> bytes:
        about = schema.get("items" if number else "arguments", {})
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            msg = f"this is no JSON: {text[:80]!r}: {exc}"
            raise RPCPluginError(msg, phase="call") from None
        return msgspec.msgpack.encode(_with_bytes(value, about, about.get("$defs", {})))

    return write


def _typed_text(data: bytes) -> str:
    return msgspec.json.encode(msgspec.msgpack.decode(data)).decode()


def _with_bytes(value: Any, schema: Any, shared: Schema) -> Any:
    """JSON has no bytes: what should be some is base64 there."""
    if not isinstance(schema, dict):
        return value
    known = cast("Schema", schema)
    items: Any = value  # In the words of one type checker, a list of nothing that is known.
    shared = {**shared, **known.get("$defs", {})}
    if "$ref" in known:
        return _with_bytes(value, shared.get(known["$ref"].rpartition("/")[2]), shared)
    if isinstance(value, dict):
        properties: Schema = known.get("properties", {})
        others: Any = known.get("additionalProperties")
        return {
            name: _with_bytes(one, properties.get(name, others), shared)
            for name, one in cast("Schema", value).items()
        }
    if isinstance(value, list):
        return [_with_bytes(one, known.get("items"), shared) for one in items]
    if isinstance(value, str) and known.get("contentEncoding") == "base64":
        try:
            return binascii.a2b_base64(value, strict_mode=True)
        except binascii.Error as exc:
            msg = f"bytes are written as base64, which {value[:40]!r} is not: {exc}"
            raise RPCPluginError(msg, phase="call") from None
    return value
