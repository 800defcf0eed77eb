"""Starts the floor's plugin."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from tests.bench.scripts.measured import memory_of_children, report

seconds: list[float] = []
memory: dict[str, int] = {}
for _ in range(2):
    start = time.perf_counter()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as plugin:
        assert plugin.stdout is not None
        address = plugin.stdout.readline().decode().split("|")[3]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            seconds.append(time.perf_counter() - start)
            memory = memory_of_children()
report(seconds, memory)
