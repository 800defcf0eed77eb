"""Plugins that flood their host's pipes, and processes that have no descriptors left."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import anyio
import pytest

from pyvider_rpcplugin import plugin_client
from tests.plugins import FOLDER
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

# Serves, and floods one of its streams from a thread meanwhile.
FLOODING = """
    import os, sys, threading
    sys.path.insert(0, {root!r})
    from pyvider_rpcplugin import plugin_server
    from tests.rpc.support import Echo

    def flood():
        while True:
            os.write({descriptor}, {line!r} * 500)

    threading.Thread(target=flood, daemon=True).start()
    plugin_server(handler=Echo()).run()
"""
ROOT = str(FOLDER.parent.parent)


def flooding(descriptor: int, line: bytes) -> list[str]:
    script = FLOODING.format(root=ROOT, descriptor=descriptor, line=line)
    return [sys.executable, "-c", textwrap.dedent(script)]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"x" * 1000,
        b'{"@level":"debug","@message":"m"}\n',
        b"Traceback (most recent call last):\n",
    ],
    ids=["empty lines", "no lines", "records", "tracebacks"],
)
async def test_flood_of_log_lines_holds_up_neither_calls_nor_the_end(line: bytes) -> None:
    quiet = plugin_client([sys.executable, str(FOLDER / "echo_plugin.py")])
    loud = plugin_client(flooding(2, line), config={"PLUGIN_LOG_LEVEL": "ERROR"})
    with anyio.fail_after(25):
        async with quiet, loud:
            for client in (quiet, loud) * 10:
                reply = await client.stub(EchoStub).Unary(EchoRequest(text="x"))
                assert reply.text == "x"
    assert loud.exit is not None
    assert len(loud.exit.stderr_tail) <= 64
    assert all(len(kept) <= 65_536 for kept in loud.exit.stderr_tail)


EXHAUSTED = """
    import os, resource, socket, sys
    sys.path.insert(0, {root!r})
    import anyio
    from pyvider_rpcplugin.rpc import Channel, Server, open_channel
    from pyvider_rpcplugin.transport import transport_for, UnixSocketTransport
    from tests.protos.echo_grpc import EchoStub
    from tests.protos.echo_pb2 import EchoRequest
    from tests.rpc.support import Echo

    async def main():
        server = Server([Echo()])
        async with UnixSocketTransport().listen() as listener, anyio.create_task_group() as tasks:
            await tasks.start(server.serve, listener)
            async with open_channel(Channel(transport_for("unix", listener.address).connect)) as one:
                await EchoStub(one).Unary(EchoRequest())
                newcomer = socket.socket(socket.AF_UNIX)
                newcomer.setblocking(False)
                used = max(map(int, os.listdir("/proc/self/fd"))) + 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
                taken = []
                try:
                    while True:
                        taken.append(os.dup(0))
                except OSError:
                    pass
                newcomer.connect(listener.address)  # and is not accepted: there is no descriptor
                for _ in range(100):
                    await EchoStub(one).Unary(EchoRequest())
                assert len(server._connections) == 1
                for number in taken:
                    os.close(number)
                while len(server._connections) < 2:
                    await anyio.sleep(0.01)
                await EchoStub(one).Unary(EchoRequest())
                newcomer.close()
            await server.stop(0)
            tasks.cancel_scope.cancel()
        print("survived")

    anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_server_without_descriptors_serves_on_and_accepts_when_there_are_some_again(
    backend: str,
) -> None:
    script = textwrap.dedent(EXHAUSTED).format(root=ROOT, backend=backend)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout.split() == ["survived"], done.stderr
