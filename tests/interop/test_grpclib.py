"""Our engine and grpclib, each as client and as server of the other."""

from __future__ import annotations

import pytest

from .conftest import PeerProcess
from .ours import channel_to, serve_for
from .scenarios import SCENARIOS

pytestmark = pytest.mark.interop

links = pytest.mark.parametrize("link", ["unix", "tcp"])


@links
@pytest.mark.parametrize("name", SCENARIOS)
async def test_their_client_to_our_server(
    name: str, link: str, grpclib_client: PeerProcess
) -> None:
    await serve_for(grpclib_client, name, link)


@links
@pytest.mark.parametrize("name", SCENARIOS)
async def test_our_client_to_their_server(
    name: str, link: str, grpclib_server: dict[str, str]
) -> None:
    async with channel_to(grpclib_server, link) as channel:
        await SCENARIOS[name](channel)
