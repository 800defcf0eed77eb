"""Without grpcio all else works, and what takes the place of its names has the same form."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What finds no grpcio, as if it were not installed.
NO_GRPCIO = """
import sys

class NoGrpcio:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"grpc", "grpc_tools", "grpc_status"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoGrpcio())
"""


def run_without_grpcio(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_GRPCIO + textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_host_and_a_plugin_work(loop: str) -> None:
    seen = run_without_grpcio(
        """
        import anyio
        from pyvider_rpcplugin import plugin_client, plugin_server
        from tests.protos.echo_grpc import EchoStub
        from tests.protos.echo_pb2 import EchoRequest
        from tests.plugins.echo_plugin import Echo

        async def main():
            server = plugin_server(handler=Echo(), standalone=True)
            async with server.serve() as address:
                async with plugin_client(address=address) as client:
                    reply = await client.stub(EchoStub).Unary(EchoRequest(text="hello"))
                    print(reply.text)

        anyio.run(main, backend=sys.argv[1])
        print(sorted(name for name in sys.modules if name.startswith("grpc.") or name == "grpc"))
        print(sorted(name for name in sys.modules if "servicer" in name or "eager" in name))
        """,
        loop,
    )
    assert seen == ["hello", "[]", "[]"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_methods_of_ones_own_are_called_and_served(loop: str) -> None:
    seen = run_without_grpcio(
        """
        import pickle
        from types import SimpleNamespace

        import anyio
        from pyvider_rpcplugin.rpc import Server
        from tests.rpc.support import linked

        async def unary(request, context):
            if request == b"abort":
                await context.abort(5, "not here", (("x-text", "t"),))
            return request[::-1]

        async def both(requests, context):
            async for request in requests:
                yield request

        def method(function, *streams):
            name = "_".join("stream" if streamed else "unary" for streamed in streams)
            return SimpleNamespace(
                request_streaming=streams[0], response_streaming=streams[1],
                request_deserializer=None, response_serializer=None, **{name: function},
            )

        async def main():
            server = Server()
            server.add_registered_method_handlers("own.Service", {
                "Unary": method(unary, False, False), "Both": method(both, True, True),
            })
            async with linked(server=server) as link:
                unary_method = link.channel.unary_unary("/own.Service/Unary")
                call = unary_method(b"abc", metadata=(("x-text", "t"),))
                print(await call, await call.code(), list((await call.initial_metadata()).items()))
                call = unary_method(b"abort")
                try:
                    await call
                except Exception as error:
                    print(error, error.code(), error.details())
                    print(error.initial_metadata(), error.trailing_metadata()["x-text"])
                    print(pickle.loads(pickle.dumps(error)).details())
                call = link.channel.stream_stream("/own.Service/Both")()
                await call.write(b"x")
                await call.done_writing()
                end = object()
                print(await call.read(), await call.read(), bool(await call.read()))
                for late in (call.write(b"y"), call.__aiter__):
                    try:
                        await late if hasattr(late, "send") else late()
                    except Exception as error:
                        print(error)

        anyio.run(main, backend=sys.argv[1])
        """,
        loop,
    )
    assert seen == [
        "b'cba' Status.OK []",
        "NOT_FOUND: not here Status.NOT_FOUND not here",
        "<MultiDict()> t",
        "not here",
        "b'x' <EOF> False",
        "RPC already finished.",
        "The iterator and read/write APIs may not be mixed on a single RPC.",
    ]
