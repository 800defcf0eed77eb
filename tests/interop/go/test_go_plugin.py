"""A host in Python with a plugin in Go."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import stat
import tempfile
from pathlib import Path

import anyio
import pytest
from grpclib import GRPCError, Status

from pyvider_rpcplugin.exception import HandshakeError, SecurityError
from pyvider_rpcplugin.process import SecureConfig
from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded

from .proto.peer_grpc import AdderStub, PeerStub
from .proto.peer_pb2 import (
    Failure,
    Key,
    LogRequest,
    Nothing,
    Pair,
    PrintRequest,
    RepeatRequest,
    Service,
    Terms,
)
from .python_host import HANG, LARGE, Adder, go_plugin

# The programs are built in a fixture, which may take longer than a test.
pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


async def test_calls_of_every_kind(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            stub = client.stub(PeerStub)
            await client.ping()
            await stub.Put(Pair(key="ключ", value=b"a value\0\xff"))
            pair = await stub.Get(Key(key="ключ"))
            assert (pair.value, pair.version) == (b"a value\0\xff", 1)
            again = await stub.Repeat(RepeatRequest(pair=pair, count=100))
            assert again == [pair] * 100
            assert (await stub.Collect([Pair(key=key) for key in "abc"])).key == "a b c"
            async with stub.Echo.open() as stream:
                for key in "abc":
                    await stream.send_message(Pair(key=key))
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.key == key
                await stream.end()
                assert await stream.recv_message() is None
            with pytest.raises(GRPCError) as caught:
                await stub.Get(Key(key="no such key"))
            assert caught.value.status is Status.NOT_FOUND
            with pytest.raises(GRPCError) as caught:
                await stub.Fail(Failure(code=9, message="nicht möglich: 100 %"))
            assert caught.value.status is Status.FAILED_PRECONDITION
            assert caught.value.message == "nicht möglich: 100 %"
            with pytest.raises(DeadlineExceeded):
                await stub.Repeat(RepeatRequest(hang=True), timeout=0.05)
        assert client.exit is not None
        assert client.exit.status == 0


async def test_several_services_of_one_plugin(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            adder = client.stub(AdderStub)
            await client.stub(PeerStub).Put(Pair(key="a"))
            assert (await adder.Add(Terms(first=1, second=2))).sum == 3


async def test_large_messages(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(20):
        async with go_plugin(go_programs, f"-receive={1 << 28}", mtls=mtls) as client:
            stub = client.stub(PeerStub)
            await stub.Put(Pair(key="large", value=LARGE))
            assert (await stub.Get(Key(key="large"))).value == LARGE


async def test_a_message_that_is_too_large_for_the_plugin(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            stub = client.stub(PeerStub)
            with pytest.raises(GRPCError) as caught:
                await stub.Put(Pair(key="large", value=LARGE))
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
            # What was left of it harms nothing.
            await client.ping()


async def test_a_message_that_is_too_large_for_the_host(go_programs: Path) -> None:
    with anyio.fail_after(10):
        async with go_plugin(
            go_programs, f"-receive={1 << 28}", grpc_max_receive_message_size=1 << 20
        ) as client:
            stub = client.stub(PeerStub)
            await stub.Put(Pair(key="large", value=LARGE))
            with pytest.raises(GRPCError) as caught:
                await stub.Get(Key(key="large"))
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
            await client.ping()


async def test_two_hundred_calls_at_once(go_programs: Path, mtls: bool) -> None:
    values: dict[str, bytes] = {}

    async def put_and_get(key: str) -> None:
        await stub.Put(Pair(key=key, value=key.encode()))
        values[key] = (await stub.Get(Key(key=key))).value

    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            stub = client.stub(PeerStub)
            async with anyio.create_task_group() as tg:
                for number in range(200):
                    tg.start_soon(put_and_get, f"key {number}")
    assert values == {f"key {number}": f"key {number}".encode() for number in range(200)}


async def test_the_plugin_is_gone_in_time_though_a_call_runs(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        client = go_plugin(go_programs, mtls=mtls)
        await client.start()
        with pytest.raises(GRPCError) as caught:
            async with client.stub(PeerStub).Repeat.open() as stream:
                await stream.send_message(HANG, end=True)
                assert await stream.recv_message() is not None
                await client.stop()
                await stream.recv_message()
        assert caught.value.status is Status.UNAVAILABLE
        assert client.exit is not None
        # Its own end, and not a signal of ours, which would have come after two seconds.
        assert client.exit.status == 0


async def test_a_plugin_killed_in_the_middle_of_a_call(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            with pytest.raises(ConnectionLost) as caught:
                async with client.stub(PeerStub).Repeat.open() as stream:
                    await stream.send_message(HANG, end=True)
                    assert await stream.recv_message() is not None
                    assert client.pid is not None
                    os.kill(client.pid, signal.SIGKILL)
                    await stream.recv_message()
            assert caught.value.exit_status == -signal.SIGKILL
            await client.exited.wait()


@pytest.mark.parametrize(("how", "status"), [("exit", 3), ("panic", 2)])
async def test_a_plugin_that_ends_in_the_middle_of_a_call(
    go_programs: Path, mtls: bool, how: str, status: int
) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            with pytest.raises(ConnectionLost) as caught:
                await client.stub(PeerStub).Crash(Key(key=how))
            assert caught.value.exit_status == status
            told = "\n".join(caught.value.stderr_tail)
            assert ("panic: as I was told" in told) == (how == "panic")


async def test_connections_by_the_broker_in_both_directions(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            stub = client.stub(PeerStub)
            for _ in range(3):
                async with client.broker.serve(Adder()) as number:
                    assert (await stub.CallBack(Service(id=number))).sum == 42
                opened = await stub.OpenBack(Nothing())
                async with client.broker.dial(opened.id) as channel:
                    assert (await AdderStub(channel).Add(Terms(first=1, second=2))).sum == 3
        assert client.exit is not None
        assert client.exit.status == 0


async def test_many_brokered_connections_at_once(go_programs: Path, mtls: bool) -> None:
    sums: list[int] = []

    async def call_back() -> None:
        async with client.broker.serve(Adder()) as number:
            sums.append((await stub.CallBack(Service(id=number))).sum)

    async def open_back() -> None:
        opened = await stub.OpenBack(Nothing())
        async with client.broker.dial(opened.id) as channel:
            sums.append((await AdderStub(channel).Add(Terms(first=1, second=2))).sum)

    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            stub = client.stub(PeerStub)
            async with anyio.create_task_group() as tg:
                for _ in range(20):
                    tg.start_soon(call_back)
                    tg.start_soon(open_back)
    assert sorted(sums) == [3] * 20 + [42] * 20


async def test_the_plugin_dials_what_nobody_serves(go_programs: Path) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs) as client:
            # It waits for five seconds, and longer than its caller does.
            with pytest.raises(DeadlineExceeded):
                await client.stub(PeerStub).CallBack(Service(id=7), timeout=0.1)
            await client.ping()


@pytest.mark.parametrize(
    ("offered", "served", "chosen"),
    [("1", "1,2", 1), ("2", "1,2", 2), ("2,1", "1,2", 2), ("1,2", "1", 1), ("1,2,3", "2", 2)],
)
async def test_the_highest_version_that_both_have(
    go_programs: Path, mtls: bool, offered: str, served: str, chosen: int
) -> None:
    plugin = go_plugin(go_programs, f"-versions={served}", versions=offered, mtls=mtls)
    with anyio.fail_after(10):
        async with plugin as client:
            assert client.negotiated_version == chosen
            stub = client.stub(PeerStub)
            await stub.Put(Pair(key="a"))
            assert (await stub.Get(Key(key="a"))).version == chosen


async def test_no_version_that_both_have(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        with pytest.raises(HandshakeError, match="version") as caught:
            await go_plugin(go_programs, "-versions=1,2", versions="3", mtls=mtls).start()
    assert "3" in str(caught.value)


async def test_a_wrong_cookie(go_programs: Path) -> None:
    with anyio.fail_after(10):
        with pytest.raises(HandshakeError) as caught:
            await go_plugin(go_programs, "-cookie=another").start()
    assert caught.value.exit_status == 1
    assert "plugin" in " ".join(caught.value.stderr_tail)


class Collected:
    """Collects output, and can be waited on until a given text is complete."""

    def __init__(self, expected: bytes) -> None:
        self.expected = expected
        self.data = b""
        self.complete = anyio.Event()

    async def __call__(self, data: bytes) -> None:
        self.data += data
        if self.data == self.expected:
            self.complete.set()


async def test_what_the_plugin_prints(go_programs: Path, mtls: bool) -> None:
    stdout = Collected("to stdout: é\n".encode() + b"o" * 5000)
    stderr = Collected("to stderr: é\n".encode() + b"e" * 5000)
    with anyio.fail_after(10):
        async with go_plugin(
            go_programs, mtls=mtls, sync_stdout=stdout, sync_stderr=stderr
        ) as client:
            await client.stub(PeerStub).Print(
                PrintRequest(stdout=stdout.expected, stderr=stderr.expected)
            )
            await stdout.complete.wait()
            await stderr.complete.wait()


async def test_what_the_plugin_writes_to_its_standard_error(go_programs: Path, mtls: bool) -> None:
    heard = io.StringIO()
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls, stderr=heard) as client:
            await client.stub(PeerStub).Log(LogRequest(level="trace", message="a line"))
    lines = [json.loads(line) for line in heard.getvalue().splitlines()]
    # Whatever level the host has for its log.
    assert ("trace", "a line") in [(line["@level"], line["@message"]) for line in lines]


async def test_log_lines_of_every_level(
    go_programs: Path, mtls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    levels = ["trace", "debug", "info", "warn", "error"]
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls, log_level="TRACE") as client:
            for level in levels:
                request = LogRequest(level=level, message=f"a line of {level}")
                request.fields.add(name="answer", value="42")
                await client.stub(PeerStub).Log(request)
    records = [record for record in caplog.records if hasattr(record, "answer")]
    assert [(record.levelno, record.getMessage()) for record in records] == [
        (number, f"a line of {level}")
        for number, level in zip((5, 10, 20, 30, 40), levels, strict=True)
    ]
    assert {record.name for record in records} == {"pyvider_rpcplugin.plugin.plugin"}
    assert {record.answer for record in records} == {"42"}


async def test_a_panic_is_an_error_in_the_log(
    go_programs: Path, mtls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls) as client:
            with pytest.raises(ConnectionLost):
                await client.stub(PeerStub).Crash(Key(key="panic"))
            await client.exited.wait()
    told = [r for r in caplog.records if r.name.startswith("pyvider_rpcplugin.plugin.")]
    [panic] = [index for index, r in enumerate(told) if r.getMessage() == "panic: as I was told"]
    assert {r.levelname for r in told[panic:]} <= {"ERROR", "WARNING"}
    assert any("goroutine" in r.getMessage() for r in told[panic:])


async def test_a_plugin_that_speaks_net_rpc(go_programs: Path) -> None:
    with anyio.fail_after(10):
        with pytest.raises(HandshakeError, match="netrpc"):
            await go_plugin(go_programs, "-netrpc").start()


def sockets() -> list[tuple[int, int]]:
    """The mode and the group of each socket file of this test."""
    files = [path.stat() for path in Path(tempfile.gettempdir()).rglob("*") if path.is_socket()]
    return [(stat.S_IMODE(file.st_mode), file.st_gid) for file in files]


async def test_sockets_for_a_group(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls, unix_socket_group=str(os.getgid())) as client:
            assert sockets() == [(0o660, os.getgid())]
            async with client.broker.serve(Adder()) as number:
                assert (await client.stub(PeerStub).CallBack(Service(id=number))).sum == 42


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
async def test_certificates_of_every_curve(go_programs: Path, curve: str) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, cert_curve=curve) as client:
            await client.ping()


async def test_a_program_is_run_only_if_its_checksum_is_right(
    go_programs: Path, mtls: bool
) -> None:
    program = (go_programs / "plugin").read_bytes()
    right = SecureConfig("sha256", hashlib.sha256(program).hexdigest())
    wrong = SecureConfig("sha256", hashlib.sha256(program[:-1]).hexdigest())
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls, secure=right) as client:
            await client.ping()
        with pytest.raises(SecurityError, match="checksum"):
            await go_plugin(go_programs, mtls=mtls, secure=wrong).start()
