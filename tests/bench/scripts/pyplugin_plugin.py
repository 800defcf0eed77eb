"""A plugin of python-plugin 0.1.0."""

# mypy: ignore-errors
# It is written for that package, which is installed in an environment of its own.

from __future__ import annotations

from pyplugin import HandshakeConfig, Plugin, ServeConfig, serve

from tests.bench.protos.echo_grpc import EchoBase, EchoStub


class Echo(EchoBase):
    async def Unary(self, stream):
        await stream.send_message(await stream.recv_message())

    async def ServerStream(self, stream):
        raise NotImplementedError

    async def ClientStream(self, stream):
        raise NotImplementedError

    async def Bidi(self, stream):
        raise NotImplementedError


class EchoPlugin(Plugin):
    def servicers(self, broker):
        return [Echo()]

    def stub(self, broker, channel):
        return EchoStub(channel)


HANDSHAKE = HandshakeConfig(
    protocol_version=1, magic_cookie_key="BENCH_COOKIE", magic_cookie_value="bench"
)

if __name__ == "__main__":
    serve(ServeConfig(handshake_config=HANDSHAKE, plugins={"echo": EchoPlugin()}))
