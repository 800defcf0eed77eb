"""A plugin with arguments of its own, on the loop of the first; it prints, logs and tells."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyvider_rpcplugin import RPCPluginError, plugin_server
from tests.plugins.echo_plugin import Echo as Plain
from tests.protos.echo_pb2 import EchoReply


class Echo(Plain):
    async def Unary(self, stream):
        text = (await stream.recv_message()).text
        match text:
            case "print":
                print("printed")
                logging.getLogger("echo").warning("logged")
            case "flood":
                print("x" * 1_000_000)
            case "chatter":
                threading.Thread(target=chatter, daemon=True).start()
            case "record":
                try:
                    text = server.reattach_config().to_json()
                except RPCPluginError as exc:
                    text = f"{type(exc).__name__}: {exc}"
        await stream.send_message(EchoReply(text=text))


def chatter() -> None:
    while True:
        os.write(1, b"x" * 100)  # which holds no lock that the interpreter's end waits for


if __name__ == "__main__":
    server = plugin_server(handler=Echo())
    debug = {"--attach": True, "--never": False}.get((sys.argv[2:] or [""])[0])
    server.run(backend="trio" if sys.argv[1] == "trio" else "asyncio", debug=debug)
