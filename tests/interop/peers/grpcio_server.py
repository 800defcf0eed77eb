"""grpcio's server with the interop service, on a Unix and a TCP socket."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from tests.interop.peers.commands import line, say
from tests.interop.service import INITIAL, TRAILING
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.protos.echo_pb2_grpc import EchoServicer, add_EchoServicer_to_server

CODES = {code.value[0]: code for code in grpc.StatusCode}
COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


class Interop(EchoServicer):
    """The service, as `tests.interop.service` describes it."""

    def __init__(self) -> None:
        self._cancelled: dict[str, asyncio.Event] = {}

    def _event(self, key: str) -> asyncio.Event:
        return self._cancelled.setdefault(key, asyncio.Event())

    async def _obey(self, request: EchoRequest, context: Any) -> None:
        what, _, rest = request.text.partition(":")
        if what == "status":
            code, _, message = rest.partition(":")
            await context.abort(CODES[int(code)], message)
        if what == "details":
            packed = AnyMessage()
            packed.Pack(ErrorInfo(reason="r", domain="d"))
            status = Status(code=10, message="see details", details=[packed])
            metadata = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(grpc.StatusCode.ABORTED, "see details", metadata)
        if what == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                self._event(rest).set()
        if what == "cancelled":
            await self._event(rest).wait()

    @staticmethod
    def _reply(request: EchoRequest, index: int = 0) -> EchoReply:
        what, _, rest = request.text.partition(":")
        data = bytes(int(rest)) if what == "size" else request.data
        return EchoReply(data=data, text=request.text, index=index)

    @staticmethod
    async def _metadata(context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if INITIAL in metadata:
            await context.send_initial_metadata(((INITIAL, metadata[INITIAL]),))
        if TRAILING in metadata:
            context.set_trailing_metadata(((TRAILING, metadata[TRAILING]),))

    async def Unary(self, request: Any, context: Any) -> EchoReply:
        await self._metadata(context)
        await self._obey(request, context)
        return self._reply(request)

    async def ServerStream(self, request: Any, context: Any) -> Any:
        if request.text in COMPRESSIONS:
            context.set_compression(COMPRESSIONS[request.text])
        for index in range(request.count):
            yield self._reply(request, index)
        await self._obey(request, context)

    async def ClientStream(self, request_iterator: Any, context: Any) -> EchoReply:
        data = b""
        texts = []
        async for request in request_iterator:
            await self._obey(request, context)
            data += request.data
            texts.append(request.text)
        return EchoReply(data=data, text="".join(texts), index=len(texts))

    async def Bidi(self, request_iterator: Any, context: Any) -> Any:
        await self._metadata(context)
        index = 0
        async for request in request_iterator:
            await self._obey(request, context)
            yield self._reply(request, index)
            index += 1


async def main(path: str) -> None:
    """Serve until stdin ends."""
    servers = []
    addresses = {}
    # What a handler says about compression counts only for streams; what a server says, for all.
    for name, compression in ((None, None), *COMPRESSIONS.items()):
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=options, compression=compression)
        add_EchoServicer_to_server(Interop(), server)
        if name is None:
            server.add_insecure_port(f"unix:{path}")
        port = server.add_insecure_port("127.0.0.1:0")
        addresses[name or "tcp"] = f"127.0.0.1:{port}"
        await server.start()
        servers.append(server)
    say(unix=path, **addresses)
    await line()
    for server in servers:
        await server.stop(0)


asyncio.run(main(sys.argv[1]))
