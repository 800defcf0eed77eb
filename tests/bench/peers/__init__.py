"""The peers: each module here has a server side and a client side behind one small interface.

A peer's module defines

- ``serve(address, backend, ready)``: listens at the Unix socket ``address``, calls ``ready()`` and
  serves until the process is ended. A peer that starts its worker itself has none.
- ``connect(address)``: an async context manager that yields a `Caller`.

This module imports none of them: each may need an environment of its own.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Caller(Protocol):
    """What the workloads ask of a peer's client. The loops are in the peer, at its full speed."""

    async def unary(self, payload: bytes, count: int) -> None:
        """Send the payload and await the same payload back, count times in a row."""

    async def server_stream(self, payload: bytes, count: int) -> None:
        """Receive one stream of count messages."""

    async def client_stream(self, payload: bytes, count: int) -> None:
        """Send one stream of count messages."""

    async def ping_pong(self, payload: bytes, count: int) -> None:
        """Send and await count messages in turn, on one stream."""


class Peer(NamedTuple):
    """One way to call a process."""

    name: str
    module: str
    """In this package."""
    backend: str
    environment: str = "main"
    """A key of `tests.bench.environments.REQUIREMENTS`."""
    distributions: tuple[str, ...] = ()
    """Whose versions go into the results."""
    calls_only: bool = False
    """It knows no streams: only the workload with one caller is run."""
    has_server: bool = True


BASELINE = "grpcio"

PEERS = {
    peer.name: peer
    for peer in [
        Peer("ours-asyncio", "ours", "asyncio", distributions=("pyvider-rpcplugin", "anyio")),
        Peer("ours-trio", "ours", "trio", distributions=("pyvider-rpcplugin", "trio")),
        Peer("ours-tls-asyncio", "ours_tls", "asyncio"),
        Peer("ours-tls-trio", "ours_tls", "trio"),
        Peer("ours-blocking", "ours_blocking", "asyncio"),
        Peer("typed-asyncio", "typed", "asyncio", distributions=("msgspec",)),
        Peer("typed-trio", "typed", "trio"),
        Peer(BASELINE, "grpcio", "asyncio", distributions=("grpcio", "protobuf")),
        Peer("grpcio-tls", "grpcio_tls", "asyncio"),
        Peer("grpclib", "grpclib", "asyncio", distributions=("grpclib", "h2", "hpack")),
        Peer("purerpc-asyncio", "purerpc", "asyncio", "purerpc", ("purerpc", "anyio")),
        Peer("purerpc-trio", "purerpc", "trio", "purerpc", ("purerpc", "trio")),
        Peer("bare-asyncio", "bare", "asyncio", distributions=("anyio",), calls_only=True),
        Peer("bare-trio", "bare", "trio", distributions=("anyio", "trio"), calls_only=True),
        Peer("pyro5", "pyro5", "asyncio", "calls", ("Pyro5",), calls_only=True),
        Peer(
            "execnet",
            "execnet",
            "asyncio",
            "calls",
            ("execnet",),
            calls_only=True,
            has_server=False,
        ),
        Peer("to_process-asyncio", "to_process", "asyncio", calls_only=True, has_server=False),
        Peer("to_process-trio", "to_process", "trio", calls_only=True, has_server=False),
    ]
}
