"""A plugin of several versions, and which of them a host gets."""

from __future__ import annotations

import sys

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    HandshakeError,
    ProtocolError,
    RPCPluginClient,
    plugin_client,
    plugin_server,
)
from tests.plugins import FOLDER
from tests.plugins.misc_plugin import Misc, ask
from tests.plugins.versions_plugin import Numbered, Own, which

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def client_of(loop: str, served: str, offered: object) -> RPCPluginClient:
    command = [sys.executable, str(FOLDER / "versions_plugin.py"), loop, served]
    return plugin_client(command, protocol_versions=offered)


@pytest.mark.process
@LOOPS
@pytest.mark.parametrize(
    ("offered", "served", "chosen"),
    [
        ("1", "1,2", 1),
        (2, "1,2", 2),
        ([2, 1], "1,2", 2),
        ([1, 2, 3], "3,4", 3),
        ([9, 4, 7], "1,2,3,4", 4),
    ],
)
async def test_the_highest_version_that_both_have_is_served(
    loop: str, offered: object, served: str, chosen: int
) -> None:
    client = client_of(loop, served, offered)
    assert client.negotiated_version is None
    with anyio.fail_after(5):
        async with client:
            assert client.negotiated_version == chosen
            assert await which(client.grpc_channel, chosen) == f"{chosen} ({chosen}, {chosen})"
    assert client.negotiated_version is None


@pytest.mark.process
async def test_services_of_other_versions_are_not_there() -> None:
    with anyio.fail_after(5):
        async with client_of("asyncio", "1,2", "2") as client:
            with pytest.raises(GRPCError) as caught:
                await which(client.grpc_channel, 1)
    assert caught.value.status is Status.UNIMPLEMENTED


@pytest.mark.process
@LOOPS
async def test_a_host_that_speaks_none_of_them_refuses_and_names_what_both_have(loop: str) -> None:
    client = client_of(loop, "1,2", "3,4")
    with anyio.fail_after(5):
        with pytest.raises(HandshakeError, match=r"serves version 1 .* speaks 3,4") as caught:
            await client.start()
    # The plugin knows its own set, and has said it in its log.
    assert "the host speaks 3,4 of the application's protocol, this plugin serves 1,2" in str(
        caught.value
    )
    assert caught.value.phase == "handshake"


@pytest.mark.net
async def test_a_server_without_a_host_serves_its_newest_version() -> None:
    server = plugin_server(versions={1: Numbered(1), 2: Misc()}, standalone=True)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            assert server.negotiated_version == 2
            assert client.negotiated_version is None
            assert await ask(client.grpc_channel, "") == "?"
    assert server.negotiated_version is None


@pytest.mark.parametrize("versions", [{}, {"1": Misc()}, {-1: Misc()}, {True: Misc()}, {1: (1,)}])
def test_a_mapping_that_is_none_is_refused_at_once(versions) -> None:
    for arguments in ({"versions": versions}, {"protocol": versions}):
        with pytest.raises(ProtocolError) as caught:
            plugin_server(**arguments)
        assert caught.value.phase == "serve"


def test_what_contradicts_a_mapping_is_refused_at_once() -> None:
    with pytest.raises(ProtocolError, match="no place for a protocol"):
        plugin_server(Own(), versions={1: Misc()})
    with pytest.raises(ProtocolError, match="tuple") as caught:
        plugin_server(handler=Misc(), versions=(1, 2))  # type: ignore[arg-type]
    assert "protocol_versions" in (caught.value.hint or "")
    with pytest.raises(ProtocolError, match="PLUGIN_PROTOCOL_VERSIONS"):
        plugin_server({1: Misc()}, protocol_versions=[1])
    with pytest.raises(ProtocolError, match="PLUGIN_PROTOCOL_VERSIONS"):
        plugin_server({1: Misc()}, config={"PLUGIN_PROTOCOL_VERSIONS": "1"})


async def test_a_version_with_nothing_to_serve_is_an_error_when_it_is_chosen() -> None:
    server = plugin_server({1: Misc(), 2: object()}, standalone=True)
    with pytest.raises(ProtocolError, match="object"):
        await server.serve()
