"""Puts a value into a plugin, or gets it: the plugin is the command in KV_PLUGIN."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

import anyio
from grpclib import GRPCError
from kv_grpc import KVStub
from kv_pb2 import GetRequest, PutRequest

from pyvider_rpcplugin import RPCPluginError, plugin_client

PLUGIN = Path(__file__).with_name("kv_plugin.py")


async def main(key: str, value: str | None) -> None:
    command = shlex.split(os.environ.get("KV_PLUGIN", "")) or [sys.executable, str(PLUGIN)]
    async with plugin_client(
        command, magic_cookie_key="BASIC_PLUGIN", magic_cookie_value="hello"
    ) as client:
        kv = client.stub(KVStub)
        if value is not None:
            await kv.Put(PutRequest(key=key, value=value.encode()))
        else:
            reply = await kv.Get(GetRequest(key=key))
            print(reply.value.decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trio", action="store_true", help="run on trio instead of asyncio")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("get").add_argument("key")
    put = commands.add_parser("put")
    put.add_argument("key")
    put.add_argument("value")
    given = parser.parse_args()
    try:
        anyio.run(
            main, given.key, getattr(given, "value", None),
            backend="trio" if given.trio else "asyncio",
        )  # fmt: skip
    except RPCPluginError as error:
        sys.exit(str(error))
    except GRPCError as error:
        sys.exit(f"{error.status.name}: {error.message}")
