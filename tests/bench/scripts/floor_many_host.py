"""Starts many of the floor's plugins: ``NUMBER PYTHON PLUGIN``; as many at a time as our host does.

Prints one JSON object: ``seconds`` from the first start to the last reply, and to some before it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.bench.scripts.measured import report_many

AT_A_TIME = 2 * len(os.sched_getaffinity(0))

replies: list[float] = []
with ExitStack() as stack:

    def one(_: int) -> None:
        plugin = stack.enter_context(subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE))
        assert plugin.stdout is not None
        address = plugin.stdout.readline().decode().split("|")[3]
        # It lives until this is closed.
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(address)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        replies.append(time.perf_counter())

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        start = time.perf_counter()
        list(threads.map(one, range(int(sys.argv[1]))))
    report_many(start, replies)
