"""The least that a plugin on asyncio can be: its modules loaded, a line, one byte echoed."""

from __future__ import annotations

import asyncio  # noqa: F401
import os
import socket
import tempfile

import anyio  # noqa: F401

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
