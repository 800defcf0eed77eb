"""grpclib's client, which runs scenarios against our server."""

from __future__ import annotations

import asyncio

from grpclib.client import Channel

from tests.interop.peers.commands import obey
from tests.interop.scenarios import SCENARIOS


async def run(scenario: str, address: str) -> None:
    """Run one scenario on a connection of its own."""
    if address.startswith("/"):
        channel = Channel(path=address)
    else:
        host, _, port = address.rpartition(":")
        channel = Channel(host, int(port))
    async with channel:
        await SCENARIOS[scenario](channel)


asyncio.run(obey(run))
