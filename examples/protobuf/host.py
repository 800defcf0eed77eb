from __future__ import annotations

import sys
from pathlib import Path

import anyio
from greeter_grpc import GreeterStub
from greeter_pb2 import CountdownRequest, HelloRequest

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("greeter_plugin.py")


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)]) as client:
        greeter = client.stub(GreeterStub)
        reply = await greeter.Hello(HelloRequest(name="Ada"))
        print(reply.text)
        async with greeter.Countdown.open() as stream:
            await stream.send_message(CountdownRequest(start=3), end=True)
            async for message in stream:
                print(message.n)


if __name__ == "__main__":
    for backend in ("asyncio", "trio"):
        print(f"on {backend}:")
        anyio.run(main, backend=backend)
