"""All over one connection: hosts and plugins in Go and in Python, with each other."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from grpclib import GRPCError, Status

from pyvider_rpcplugin.rpc import ConnectionLost

from .programs import conformance_plugin, python_plugin, run_host
from .proto.peer_grpc import AdderStub, PeerStub
from .proto.peer_pb2 import Key, Nothing, Pair, Service, Terms
from .python_host import HANG, LARGE, Adder, go_plugin

# The programs are built in a fixture, which may take longer than a test.
pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


def test_a_go_host_makes_calls_of_every_kind(
    go_programs: Path,
    loop: str,
    mtls: bool,
) -> None:
    report = run_host(
        go_programs, python_plugin(loop), "ping", "kv", "repeat", "collect", "echo", "many",
        "large", "print", mtls=mtls, multiplex=True,
    )  # fmt: skip
    assert (report.error, report.errors) == ("", {})
    assert report.results == {
        "ping": "pong", "kv": 1, "repeat": 100, "collect": "a b c", "echo": "a b c", "many": 200,
        "large": 64 << 20, "print": True,
    }  # fmt: skip
    assert report.ended_well


def test_a_go_host_brokers_in_both_directions(
    go_programs: Path,
    loop: str,
    mtls: bool,
) -> None:
    # One after the other: go-plugin says so itself.
    report = run_host(
        go_programs, conformance_plugin(loop), "conformance", mtls=mtls, multiplex=True
    )
    assert (report.error, report.errors) == ("", {})
    assert report.results == {"conformance": {"double": 42, "stream": [0, 2, 4], "ping": "pong"}}
    assert report.ended_well
    report = run_host(
        go_programs, python_plugin(loop), "call-back", "open-back", "several-brokers", "kv",
        mtls=mtls, multiplex=True,
    )  # fmt: skip
    assert (report.error, report.errors) == ("", {})
    assert report.results == {
        "call-back": 42, "open-back": 3, "several-brokers": 5 * (42 + 3), "kv": 1
    }  # fmt: skip
    assert report.ended_well


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_go_host_ends_a_plugin_in_the_middle_of_a_call(
    go_programs: Path,
    loop: str,
    how: str,
) -> None:
    report = run_host(go_programs, python_plugin(loop), how, mtls=True, multiplex=True)
    assert report.results == {how: True}
    assert report.errors[how]["code"] in {"Canceled", "Unavailable"}
    assert report.exit == {"stopped": "exit status 0", "killed": "signal: killed"}[how]
    # What a killed one left, the next one removes.
    assert run_host(go_programs, python_plugin(loop), mtls=True, multiplex=True).ended_well


async def test_a_go_plugin_serves_calls_of_every_kind(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(20):
        async with go_plugin(
            go_programs, f"-receive={1 << 28}", mtls=mtls, multiplex_grpc=True
        ) as client:
            stub = client.stub(PeerStub)
            await client.ping()
            pair = Pair(key="a", value=LARGE)
            await stub.Put(pair)
            assert (await stub.Get(Key(key="a"))).value == LARGE
            assert (await stub.Collect([Pair(key=key) for key in "abc"])).key == "a b c"
            assert [p.key for p in await stub.Echo([Pair(key=key) for key in "abc"])] == [*"abc"]
            async with anyio.create_task_group() as tg:
                for number in range(200):
                    tg.start_soon(stub.Put, Pair(key=f"key {number}"))
        assert client.exit is not None
        assert client.exit.status == 0


async def test_a_go_plugin_brokers_in_both_directions(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        async with go_plugin(go_programs, mtls=mtls, multiplex_grpc=True) as client:
            stub = client.stub(PeerStub)
            for _ in range(3):
                async with client.broker.serve(Adder()) as number:
                    assert (await stub.CallBack(Service(id=number))).sum == 42
                opened = await stub.OpenBack(Nothing())
                async with client.broker.dial(opened.id) as channel:
                    assert (await AdderStub(channel).Add(Terms(first=1, second=2))).sum == 3
        assert client.exit is not None
        assert client.exit.status == 0


async def test_a_go_plugin_ends_in_the_middle_of_a_call(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(10):
        client = go_plugin(go_programs, mtls=mtls, multiplex_grpc=True)
        await client.start()
        with pytest.raises(GRPCError) as caught:
            async with client.stub(PeerStub).Repeat.open() as stream:
                await stream.send_message(HANG, end=True)
                assert await stream.recv_message() is not None
                await client.stop()
                await stream.recv_message()
        assert caught.value.status is Status.UNAVAILABLE
        assert client.exit is not None
        assert client.exit.status == 0
        async with client:
            with pytest.raises(ConnectionLost) as lost:
                await client.stub(PeerStub).Crash(Key(key="exit"))
            assert lost.value.exit_status == 3
