"""The certificate that a plugin gets from its host, in real processes."""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.process.runners import WrappedRunner, subprocess_runner
from tests.plugins import FOLDER
from tests.plugins.misc_plugin import ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pyvider_rpcplugin.process.runners import RunSpec

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

VARIABLE = "PLUGIN_IDENTITY_PIPE"


def misc(loop: str = "asyncio") -> list[str]:
    return [sys.executable, str(FOLDER / "misc_plugin.py"), loop]


def pipe_of(pid: int) -> str | None:
    """The pipe that a process was started with, as /proc calls it."""
    for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = each.decode().partition("=")
        if name == VARIABLE:
            return f"pipe:[{value.split(':')[2]}]"
    return None


def open_in(pid: int | str) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(entry) for entry in folder.iterdir() if entry.is_symlink()]


def shown_by(client: Any) -> bytes:
    der: bytes = client._launch.record.certificate
    return der


async def loaded_in(client: Any) -> bool:
    return "cryptography" in (await ask(client.grpc_channel, "modules")).split()


async def test_a_plugin_has_its_certificate_from_its_host_and_keeps_no_way_to_it(
    anyio_backend: tuple[str, Any],
) -> None:
    with anyio.fail_after(20):
        client = plugin_client(misc(anyio_backend[0]))
        seen = set()
        for _ in range(2):
            async with client.start():
                seen.add(shown_by(client))
                assert not await loaded_in(client)
                pipe = pipe_of(client.pid or 0)
                assert pipe is not None
                child = json.loads(await ask(client.grpc_channel, "child"))
                assert "PATH" in child
                assert VARIABLE not in child
                for descriptors in (child, open_in(client.pid or 0), open_in("self")):
                    assert pipe not in descriptors
    # Another one for each start.
    assert len(seen) == 2


async def test_plugins_that_start_together_have_different_certificates() -> None:
    seen: list[bytes] = []

    async def start() -> None:
        async with plugin_client(misc()) as client:
            seen.append(shown_by(client))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(start)
    assert len(set(seen)) == 3


async def test_without_automatic_tls_nothing_is_handed_over() -> None:
    with anyio.fail_after(10):
        async with plugin_client(misc(), auto_mtls=False, env={"PLUGIN_AUTO_MTLS": "0"}) as client:
            assert pipe_of(client.pid or 0) is None


async def test_a_plugin_with_settings_of_its_own_makes_its_certificate() -> None:
    with anyio.fail_after(10):
        async with plugin_client(misc(), env={"PLUGIN_CERT_CURVE": "secp384r1"}) as client:
            assert await loaded_in(client)


async def test_a_plugin_behind_a_wrapper_that_closes_descriptors_makes_its_certificate() -> None:
    code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    with anyio.fail_after(10):
        async with plugin_client([sys.executable, "-c", code, *misc()]) as client:
            assert await loaded_in(client)


async def test_a_plugin_of_a_runner_of_ones_own_makes_its_certificate() -> None:
    @asynccontextmanager
    async def start(spec: RunSpec) -> AsyncGenerator[WrappedRunner]:
        assert VARIABLE not in spec.env
        async with subprocess_runner(spec) as child:
            yield WrappedRunner(child)

    with anyio.fail_after(10):
        async with plugin_client(misc(), runner=start) as client:
            assert await loaded_in(client)
            assert pipe_of(client.pid or 0) is None


async def test_the_second_server_of_a_process_makes_its_certificate() -> None:
    with anyio.fail_after(10):
        async with plugin_client(misc()) as client:
            first = shown_by(client)
            second = await ask(client.grpc_channel, "second")
            assert await loaded_in(client)
    assert bytes.fromhex(second) != first
