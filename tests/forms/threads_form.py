"""The echo service by what grpcio-tools generates, with plain functions that run in threads."""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc  # type: ignore[import-untyped]

from tests.forms.conduct import REASON, REFUSED
from tests.protos.echo_pb2 import EchoReply
from tests.protos.echo_pb2_grpc import EchoServicer


class Echo(EchoServicer):
    def Unary(self, request, context):
        if request.text == REFUSED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, REASON)
        while request.text == "wait" and context.is_active():
            time.sleep(0.001)
        return EchoReply(data=request.data, text=request.text)

    def ServerStream(self, request, context):
        for index in range(request.count):
            yield EchoReply(text=request.text, index=index)

    def ClientStream(self, request_iterator, context):
        texts = [request.text for request in request_iterator]
        return EchoReply(text="".join(texts), index=len(texts))

    def Bidi(self, request_iterator, context):
        for index, request in enumerate(request_iterator):
            yield EchoReply(text=request.text, index=index)


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_server

    plugin_server(handler=Echo()).run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
