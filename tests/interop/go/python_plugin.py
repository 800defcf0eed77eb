"""A plugin for hosts written in Go: the same service as that of the plugin in Go."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import anyio
from grpclib import GRPCError, Status

from pyvider_rpcplugin import context, plugin_client, plugin_protocol, plugin_server
from tests.interop.go.proto.peer_grpc import AdderBase, AdderStub, PeerBase, PeerStub
from tests.interop.go.proto.peer_pb2 import Key, Nothing, Pair, Service, Sum, Terms

logger = logging.getLogger("interop")
COOKIE = {
    "PLUGIN_MAGIC_COOKIE_KEY": "INTEROP_COOKIE",
    "PLUGIN_MAGIC_COOKIE_VALUE": "interop",
}
LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40}


class Peer(PeerBase):
    def __init__(self, version: int = 1) -> None:
        self.pairs: dict[str, bytes] = {}
        self.version = version

    async def Put(self, stream):
        pair = await stream.recv_message()
        self.pairs[pair.key] = pair.value
        await stream.send_message(Nothing())

    async def Get(self, stream):
        key = (await stream.recv_message()).key
        if key not in self.pairs:
            raise GRPCError(Status.NOT_FOUND, f'no key "{key}"')
        await stream.send_message(Pair(key=key, value=self.pairs[key], version=self.version))

    async def Repeat(self, stream):
        request = await stream.recv_message()
        for _ in range(request.count):
            await stream.send_message(request.pair)
        if request.hang:
            await anyio.sleep_forever()

    async def Collect(self, stream):
        keys = [pair.key async for pair in stream]
        await stream.send_message(Key(key=" ".join(keys)))

    async def Echo(self, stream):
        async for pair in stream:
            await stream.send_message(pair)

    async def Fail(self, stream):
        failure = await stream.recv_message()
        if failure.code:
            raise GRPCError(Status(failure.code), failure.message)
        raise RuntimeError(failure.message)

    async def Crash(self, stream):
        how = (await stream.recv_message()).key
        match how:
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        raise GRPCError(Status.INVALID_ARGUMENT, f'no such crash: "{how}"')

    async def Print(self, stream):
        request = await stream.recv_message()
        sys.stdout.write(request.stdout.decode())
        sys.stderr.write(request.stderr.decode())
        await stream.send_message(Nothing())

    async def Log(self, stream):
        request = await stream.recv_message()
        logger.log(
            LEVELS[request.level], request.message, extra={f.name: f.value for f in request.fields}
        )
        await stream.send_message(Nothing())

    async def CallBack(self, stream):
        service = await stream.recv_message()
        async with context().broker.dial(service.id) as channel:
            result = await AdderStub(channel).Add(Terms(first=20, second=22))
        await stream.send_message(result)

    async def OpenBack(self, stream):
        await stream.recv_message()
        number = await context().broker.start_serving(Adder())
        await stream.send_message(Service(id=number))


class Adder(AdderBase):
    async def Add(self, stream):
        terms = await stream.recv_message()
        await stream.send_message(Sum(sum=terms.first + terms.second))


class Forwarder(Peer):
    """Asks a plugin of its own."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    async def Put(self, stream):
        pair = await stream.recv_message()
        async with plugin_client([self.command], config=COOKIE) as client:
            stub = client.stub(PeerStub)
            await stub.Put(pair)
            self.pairs[pair.key] = (await stub.Get(Key(key=pair.key))).value
            async with client.broker.serve(Adder()) as number:
                assert (await stub.CallBack(Service(id=number))).sum == 42
        await stream.send_message(Nothing())


def add_both(handler: Any, server: Any) -> None:
    server.add_service(handler)
    server.add_service(Adder())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inner")
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--versions", default="1")
    parser.add_argument("--each", action="store_true", help="each version has its own handler")
    parser.add_argument("--both", action="store_true", help="serve the Adder, too")
    parser.add_argument("--debug", action="store_true", default=None)
    options = parser.parse_args()
    if options.each:
        handlers = {version: Peer(version) for version in map(int, options.versions.split(","))}
        server = plugin_server(versions=handlers, config=COOKIE)
    else:
        server = plugin_server(
            plugin_protocol(servicer_add_fn=add_both) if options.both else None,
            handler=Peer() if options.inner is None else Forwarder(options.inner),
            config=COOKIE,
            protocol_versions=options.versions,
        )
    server.run(backend=options.loop, debug=options.debug)


if __name__ == "__main__":
    main()
