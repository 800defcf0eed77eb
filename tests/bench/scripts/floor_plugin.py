"""The least that a plugin on asyncio can be: its modules loaded, a line, one byte echoed.

It loads what any such plugin must: the loop, encryption, anyio, and what the user's own code needs,
which is generated code unless an argument says ``typed``: then it needs nothing.
"""

from __future__ import annotations

import asyncio  # noqa: F401
import os
import socket
import ssl  # noqa: F401
import sys
import tempfile

import anyio  # noqa: F401

if "typed" not in sys.argv:
    from tests.bench.protos import echo_grpc, echo_pb2  # noqa: F401

with (
    tempfile.TemporaryDirectory(prefix="floor-") as folder,
    socket.socket(socket.AF_UNIX) as server,
):
    address = os.path.join(folder, "socket")
    server.bind(address)
    server.listen()
    print(f"1|1|unix|{address}|grpc", flush=True)
    connection, _ = server.accept()
    connection.sendall(connection.recv(1))
    # The host has its reply, and ends this process by closing the connection.
    connection.recv(1)
