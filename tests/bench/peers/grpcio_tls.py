"""grpcio's asyncio API over mutual TLS, with certificates like those that plugins make.

grpcio wants to know the other side's certificate when it begins, and here the server begins first:
so the server makes both sides' and hands the client's to it in a file.
"""

# mypy: ignore-errors
# grpcio comes without annotations, and so does the code that it generates.

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import grpc
import grpc.aio

from pyvider_rpcplugin.crypto import make_certificate
from tests.bench.peers.grpcio import Echo, GrpcioCaller
from tests.bench.protos.echo_pb2_grpc import add_EchoServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    own, clients = make_certificate(), make_certificate()
    handed = {"roots": own.pem, "chain": clients.pem, "key": clients.key_pem}
    # The folder is the benchmark's own, which nobody else can enter.
    Path(f"{address}.client").write_text(json.dumps(handed))

    async def main() -> None:
        server = grpc.aio.server()
        add_EchoServicer_to_server(Echo(), server)
        credentials = grpc.ssl_server_credentials(
            [(own.key_pem.encode(), own.pem.encode())],
            root_certificates=clients.pem.encode(),
            require_client_auth=True,
        )
        server.add_secure_port(f"unix:{address}", credentials)
        await server.start()
        ready()
        await server.wait_for_termination()

    asyncio.run(main())


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[GrpcioCaller]:
    handed = json.loads(await anyio.Path(f"{address}.client").read_text())
    roots, chain, key = (handed[name].encode() for name in ("roots", "chain", "key"))
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    # A Unix socket has no host name; the certificates are for this one.
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"unix:{address}", credentials, options) as channel:
        yield GrpcioCaller(channel)
