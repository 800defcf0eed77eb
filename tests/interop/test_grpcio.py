"""Our engine and grpcio, each as client and as server of the other."""

from __future__ import annotations

from typing import Any

import pytest

from pyvider_rpcplugin.rpc import DeadlineExceeded
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .conftest import PeerProcess
from .ours import channel_to, serve_for
from .peers.grpcio_scenarios import NAMES
from .scenarios import REQUEST_SIZES, SCENARIOS, empty_unary
from .service import TRAILING

pytestmark = pytest.mark.interop

links = pytest.mark.parametrize("link", ["unix", "tcp"])
encodings = pytest.mark.parametrize("encoding", ["gzip", "deflate"])


@links
@pytest.mark.parametrize("name", NAMES)
async def test_their_client_to_our_server(name: str, link: str, grpcio_client: PeerProcess) -> None:
    await serve_for(grpcio_client, name, link)


@links
@pytest.mark.parametrize("name", SCENARIOS)
async def test_our_client_to_their_server(
    name: str, link: str, grpcio_server: dict[str, str]
) -> None:
    async with channel_to(grpcio_server, link) as channel:
        await SCENARIOS[name](channel)


@encodings
async def test_client_compressed_unary(encoding: Any, grpcio_server: dict[str, str]) -> None:
    async with channel_to(grpcio_server, "unix", compression=encoding) as channel:
        request = EchoRequest(data=bytes(271_828))
        assert (await EchoStub(channel).Unary(request)).data == request.data
        await empty_unary(channel)


@encodings
async def test_client_compressed_streaming(encoding: Any, grpcio_server: dict[str, str]) -> None:
    async with channel_to(grpcio_server, "unix", compression=encoding) as channel:
        requests = [EchoRequest(data=bytes(size)) for size in REQUEST_SIZES]
        reply = await EchoStub(channel).ClientStream(requests)
        assert len(reply.data) == sum(REQUEST_SIZES)


@encodings
async def test_server_compressed_unary(encoding: str, grpcio_server: dict[str, str]) -> None:
    async with channel_to({"tcp": grpcio_server[encoding]}, "tcp") as channel:
        async with EchoStub(channel).Unary.open() as stream:
            await stream.send_message(EchoRequest(data=bytes(314_159)))
            reply = await stream.recv_message()
            assert reply is not None
            assert reply.data == bytes(314_159)
            used: Any = stream
            assert used._open_messages.encoding_in.name == encoding


@encodings
async def test_server_compressed_streaming(encoding: str, grpcio_server: dict[str, str]) -> None:
    async with channel_to(grpcio_server, "unix") as channel:
        request = EchoRequest(data=bytes(31_415), text=encoding, count=4)
        replies = await EchoStub(channel).ServerStream(request)
        assert [len(reply.data) for reply in replies] == [31_415] * 4


async def test_empty_binary_metadata(grpcio_server: dict[str, str]) -> None:
    async with channel_to(grpcio_server, "unix") as channel:
        async with EchoStub(channel).Unary.open(metadata={TRAILING: b""}) as stream:
            await stream.send_message(EchoRequest())
            await stream.recv_message()
        assert stream.trailing_metadata is not None
        assert stream.trailing_metadata[TRAILING] == b""


async def test_a_deadline_is_a_timeout_whoever_notices_first(grpcio_server: dict[str, str]) -> None:
    async with channel_to(grpcio_server, "unix") as channel:
        for _ in range(10):
            with pytest.raises(DeadlineExceeded):
                await EchoStub(channel).Unary(EchoRequest(text="hang:x"), timeout=0.01)
        await empty_unary(channel)
