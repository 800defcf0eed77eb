"""Certificates that were made beforehand, with a host or a plugin in Go on the other side."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import RPCPluginClient, SecurityError
from tests.crypto.material import KINDS, Material, make

from .programs import python_plugin, run_host
from .proto.peer_grpc import AdderStub, PeerStub
from .proto.peer_pb2 import Key, Nothing, Pair, Service, Terms
from .python_host import Adder, go_plugin

# The programs are built in a fixture, which may take longer than a test.
pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip

KIND = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def authority(number: int = 0) -> Material:
    return make(name=f"authority {number}", ca=True, number=number)


def for_python(side: str, kind: str) -> dict[str, Any]:
    """The settings of a plugin ("server") or a host ("client"), by the authority that both trust."""
    other = "client" if side == "server" else "server"
    own = make(kind, issuer=authority(), number=1)
    return {
        f"{side}_cert": own.pem,
        f"{side}_key": own.key_pem,
        f"{other}_root_certs": authority().pem,
    }


def for_go(folder: Path, kind: str, signer: Material) -> dict[str, str]:
    """The flags of a host or a plugin in Go, with a certificate by whoever signs it."""
    own = make(kind, issuer=signer, number=2)
    files = {"own": own.pem + own.key_pem, "authority": authority().pem}
    for name, text in files.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: str(folder / f"{name}.pem") for name in files}


@KIND
def test_a_go_host_and_its_plugin(
    go_programs: Path, loop: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in for_python("server", kind).items():
        monkeypatch.setenv(f"PLUGIN_{name.upper()}", value)
    report = run_host(
        go_programs, python_plugin(loop), "ping", "kv", "call-back", "open-back",
        **for_go(tmp_path, kind, authority()),
    )  # fmt: skip
    assert (report.error, report.errors) == ("", {})
    assert report.results == {"ping": "pong", "kv": 1, "call-back": 42, "open-back": 3}
    assert report.ended_well


def test_a_go_host_that_somebody_else_vouches_for_is_refused(
    go_programs: Path, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in for_python("server", "P-256").items():
        monkeypatch.setenv(f"PLUGIN_{name.upper()}", value)
    stranger = for_go(tmp_path, "P-256", authority(1))
    report = run_host(go_programs, python_plugin(loop), "kv", **stranger)
    assert report.results == {}
    # Under TLS 1.3 it may learn why, or only that it was cut off.
    assert report.errors["kv"]["code"] == "Unavailable"
    # The host cannot ask such a plugin to end, and kills it. The next one tidies up.
    assert report.was_forced
    own = for_go(tmp_path, "P-256", authority())
    assert run_host(go_programs, python_plugin(loop), **own).ended_well


def host(
    folder: Path, kind: str, go: dict[str, str], *, multiplex_grpc: bool = False
) -> RPCPluginClient:
    flags = [f"-{name}={value}" for name, value in go.items()]
    return go_plugin(folder, *flags, multiplex_grpc=multiplex_grpc, **for_python("client", kind))


@KIND
@pytest.mark.parametrize("multiplex", [False, True], ids=["several", "shared"])
async def test_a_go_plugin_and_its_host(
    go_programs: Path, kind: str, multiplex: bool, tmp_path: Path
) -> None:
    client = host(go_programs, kind, for_go(tmp_path, kind, authority()), multiplex_grpc=multiplex)
    with anyio.fail_after(10):
        async with client:
            stub = client.stub(PeerStub)
            await client.ping()
            await stub.Put(Pair(key="a", value=b"b"))
            assert (await stub.Get(Key(key="a"))).value == b"b"
            async with client.broker.serve(Adder()) as number:
                assert (await stub.CallBack(Service(id=number))).sum == 42
            opened = await stub.OpenBack(Nothing())
            async with client.broker.dial(opened.id) as channel:
                assert (await AdderStub(channel).Add(Terms(first=1, second=2))).sum == 3
        assert client.exit is not None
        assert client.exit.status == 0


async def test_a_go_plugin_that_somebody_else_vouches_for_is_refused(
    go_programs: Path, tmp_path: Path
) -> None:
    client = host(go_programs, "P-256", for_go(tmp_path, "P-256", authority(1)))
    with anyio.fail_after(10), pytest.raises(SecurityError, match="certificate"):
        await client.start()
