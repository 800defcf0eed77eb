"""A host in Python that attaches to a plugin in Go which runs already."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib import GRPCError

from pyvider_rpcplugin import ReattachConfig, plugin_client

from .proto.peer_grpc import PeerStub
from .proto.peer_pb2 import Key, Pair, Service
from .python_host import Adder, go_plugin

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


@contextlib.contextmanager
def served_for_debugging(folder: Path) -> Iterator[ReattachConfig]:
    """A plugin in Go that somebody has started by hand, and its record."""
    command = [str(folder / "plugin"), "-debug"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield ReattachConfig.from_json(process.stdout.readline())
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def put(client: Any, value: bytes) -> None:
    await client.stub(PeerStub).Put(Pair(key="key", value=value))


async def get(client: Any) -> bytes:
    value: bytes = (await client.stub(PeerStub).Get(Key(key="key"))).value
    return value


async def test_a_plugin_that_is_served_for_debugging_is_used_and_left(go_programs: Path) -> None:
    with anyio.fail_after(10), served_for_debugging(go_programs) as record:
        assert record.test
        assert record.pid
        for value in (b"first", b"second"):
            async with plugin_client(reattach=record.to_json(), auto_mtls=False) as client:
                assert client.negotiated_version == record.protocol_version == 1
                await client.ping()
                await put(client, value)
                assert await get(client) == value
            assert not client.exited.is_set()


async def test_another_host_takes_over_and_ends_the_plugin(go_programs: Path, mtls: bool) -> None:
    with anyio.fail_after(15):
        async with go_plugin(go_programs, mtls=mtls) as owner:
            await put(owner, b"a value")
            record = owner.reattach_config()
            assert (record.client_key is not None) is mtls
            async with plugin_client(reattach=record, auto_mtls=mtls) as guest:
                assert await get(guest) == b"a value"
                assert guest.pid == owner.pid
            assert guest.exited.is_set()
            assert (await owner.wait()).status == 0


async def test_a_plugin_that_was_left_is_found_again_but_its_broker_is_not_there(
    go_programs: Path, tmp_path: Path
) -> None:
    # A program in Go that writes to a pipe which nobody reads any more is ended by that.
    log = tmp_path / "log"
    command = ["sh", "-c", 'exec "$0" 2>>"$1"', str(go_programs / "plugin"), str(log)]
    cookie: dict[str, Any] = {
        "magic_cookie_key": "INTEROP_COOKIE", "magic_cookie_value": "interop"
    }  # fmt: skip
    with anyio.fail_after(20):
        async with plugin_client(command, outlive_host=True, **cookie) as client:
            await put(client, b"a value")
            record = await client.detach()
        try:
            async with plugin_client(reattach=record) as client:
                assert await get(client) == b"a value"
                # It has ended for good with the first control stream.
                stub = client.stub(PeerStub)
                async with client.broker.serve(Adder()) as number:
                    with pytest.raises(GRPCError, match="timeout waiting for connection info"):
                        await stub.CallBack(Service(id=number))
                assert await get(client) == b"a value"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
        assert client.exit is not None
        assert client.exit.status == 0
