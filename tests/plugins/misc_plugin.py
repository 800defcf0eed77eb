"""A plugin of which tests look at the process: its descriptors, signals and modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
from grpclib.const import Cardinality, Handler

from pyvider_rpcplugin import plugin_server
from pyvider_rpcplugin.config import load_settings
from pyvider_rpcplugin.crypto import plugin_tls
from pyvider_rpcplugin.server._inherited import take_inherited
from tests.plugins import run_on


class Text:
    """A message without protobuf."""

    def __init__(self, text: str = "") -> None:
        self.text = text

    def SerializeToString(self) -> bytes:
        return self.text.encode()

    @classmethod
    def FromString(cls, data: bytes) -> Text:
        return cls(data.decode())


class Misc:
    async def _ask(self, stream) -> None:
        match (await stream.recv_message()).text:
            case "child":
                # Of what is open here, this child gets all that may be inherited.
                code = "import os, json; fds = '/proc/self/fd'; print(json.dumps([*os.environ, *("
                code += "os.readlink(f'{fds}/{fd}') for fd in os.listdir(fds)[:-1])]))"
                command = [sys.executable, "-c", code]
                answer = subprocess.check_output(  # noqa: ASYNC221 - anyio closes all of them
                    command, close_fds=False
                ).decode()
            case "second":
                # What another server in here would do.
                handed = take_inherited(os.environ)
                made = plugin_tls(load_settings(side="plugin"), handed=handed).certificate
                assert made is not None
                answer = made.hex()
            case "modules":
                answer = " ".join(sys.modules)
            case "sigint-of-child":
                code = "import signal; print(signal.getsignal(signal.SIGINT))"
                result = await anyio.run_process([sys.executable, "-c", code])
                answer = result.stdout.decode()
            case _:
                answer = "?"
        await stream.send_message(Text(answer))

    def __mapping__(self):
        return {"/misc.Misc/Ask": Handler(self._ask, Cardinality.UNARY_UNARY, Text, Text)}


async def ask(channel, question: str) -> str:
    async with channel.request("/misc.Misc/Ask", Cardinality.UNARY_UNARY, Text, Text) as stream:
        await stream.send_message(Text(question), end=True)
        return (await stream.recv_message()).text


def main() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    print("printed before serving, and not flushed")
    run_on(sys.argv[1], plugin_server(handler=Misc()))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    # Descriptor 1 is the host's pipe again.
    os.write(1, b"after\n")
    print("served", file=sys.stderr)


if __name__ == "__main__":
    main()
