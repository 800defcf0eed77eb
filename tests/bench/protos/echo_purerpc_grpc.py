import purerpc
import tests.bench.protos.echo_pb2 as tests_dot_bench_dot_protos_dot_echo__pb2


class EchoServicer(purerpc.Servicer):
    async def Unary(self, input_message):
        raise NotImplementedError()

    async def ServerStream(self, input_message):
        raise NotImplementedError()

    async def ClientStream(self, input_messages):
        raise NotImplementedError()

    async def Bidi(self, input_messages):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "bench.Echo"
        )
        service_obj.add_method(
            "Unary",
            self.Unary,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        service_obj.add_method(
            "ServerStream",
            self.ServerStream,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        service_obj.add_method(
            "ClientStream",
            self.ClientStream,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        service_obj.add_method(
            "Bidi",
            self.Bidi,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        return service_obj


class EchoStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "bench.Echo",
            channel
        )
        self.Unary = self._client.get_method_stub(
            "Unary",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        self.ServerStream = self._client.get_method_stub(
            "ServerStream",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        self.ClientStream = self._client.get_method_stub(
            "ClientStream",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )
        self.Bidi = self._client.get_method_stub(
            "Bidi",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
                tests_dot_bench_dot_protos_dot_echo__pb2.Message,
            )
        )