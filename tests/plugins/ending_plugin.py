"""A plugin that is told when it is about to end, on the loop of its first argument."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
import anyio.lowlevel
from grpclib.const import Cardinality, Handler

from pyvider_rpcplugin import plugin_server
from tests.plugins.misc_plugin import Text


class Patient:
    """Answers when the plugin ends, and not before."""

    def __init__(self) -> None:
        self.ending = anyio.Event()

    async def _wait(self, stream) -> None:
        await stream.recv_message()
        await stream.send_message(Text("waiting"))
        await self.ending.wait()
        await stream.send_message(Text("ending"))

    def __mapping__(self):
        return {"/patient.Patient/Wait": Handler(self._wait, Cardinality.UNARY_STREAM, Text, Text)}


def wait(channel):
    return channel.request("/patient.Patient/Wait", Cardinality.UNARY_STREAM, Text, Text)


async def say_goodbye() -> None:
    print("first")
    await anyio.lowlevel.checkpoint()
    print("last")


def fail() -> None:
    msg = "told so"
    raise RuntimeError(msg)


if __name__ == "__main__":
    patient = Patient()
    server = plugin_server(
        handler=patient,
        on_shutdown=[say_goodbye, fail, patient.ending.set],
        grpc_grace_period=60,
    )
    server.run(backend="trio" if sys.argv[1] == "trio" else "asyncio")
