"""How long failures take to arrive, on the loop that the argument names.

Prints one JSON object: for each case the seconds until the exception came, and its class. The
plugins are small shell scripts, so that their own start costs little.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from pyvider_rpcplugin import plugin_client
from tests.bench.protos.echo_grpc import EchoStub
from tests.bench.protos.echo_pb2 import Message

SETTINGS = {"PLUGIN_AUTO_MTLS": False, "PLUGIN_CLIENT_RETRY_ENABLED": False}

# What the plugin does in place of a handshake. Those that print stay alive afterwards.
SCRIPTS = {
    "exits with status 3": "exit 3",
    "killed by a signal": "kill -KILL $$",
    "closes stdout, prints nothing": "exec >&-; exec sleep 60",
    "noise without a newline": "head -c 2000000 /dev/zero | tr '\\0' x; exec sleep 60",
    "malformed line": "echo '1|1|unix'; exec sleep 60",
    "wrong core version": "echo '2|1|unix|/nowhere/socket|grpc'; exec sleep 60",
    "wrong app version": "echo '1|9|unix|/nowhere/socket|grpc'; exec sleep 60",
    "netrpc": "echo '1|1|unix|/nowhere/socket|netrpc'; exec sleep 60",
    "dead address": "echo '1|1|unix|/nowhere/socket|grpc'; exec sleep 60",
}


async def timed_start(command: list[str]) -> tuple[float, str]:
    client = plugin_client(command, config=SETTINGS)
    start = time.perf_counter()
    try:
        with anyio.fail_after(30):
            await client.start()
    except Exception as error:
        return time.perf_counter() - start, type(error).__name__
    finally:
        await client.stop()
    return time.perf_counter() - start, "no error"


async def timed_kill(plugin: list[str]) -> tuple[float, str]:
    """Return the time from the kill to the error of a call in the midst."""
    async with plugin_client(plugin, config=SETTINGS) as client:
        async with client.stub(EchoStub).Bidi.open() as stream:
            await stream.send_message(Message(data=b"x"))
            await stream.recv_message()
            pid = client.pid
            assert pid is not None
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            try:
                with anyio.fail_after(30):
                    await stream.recv_message()
            except Exception as error:
                taken = time.perf_counter() - start
                await stream.cancel()
                return taken, type(error).__name__
    return 0.0, "no error"


async def main() -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "text").write_text("not a program")
        commands = {
            "no such file": [str(folder / "missing")],
            "not executable": [str(folder / "text")],
            **{case: ["/bin/sh", "-c", script] for case, script in SCRIPTS.items()},
        }
        for case, command in commands.items():
            results[case] = await timed_start(command)
    results["killed in the midst of a call"] = await timed_kill(sys.argv[2:] + sys.argv[1:2])
    print(json.dumps(results), flush=True)


anyio.run(main, backend=sys.argv[1])
