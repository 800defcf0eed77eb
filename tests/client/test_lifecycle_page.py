"""What docs/lifecycle.md shows, works."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import PluginExit, ReattachConfig, plugin_client
from tests.pages import run_shown, shown
from tests.plugins import echo

pytestmark = pytest.mark.process

PAGE = "lifecycle.md"


async def test_the_end_of_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    clients: list[Any] = []

    def start(*arguments: Any, **options: Any) -> Any:
        clients.append(plugin_client(*arguments, **options))
        return clients[-1]

    async def kill() -> None:
        while not clients or clients[-1].grpc_channel is None:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        os.kill(clients[-1].pid, signal.SIGKILL)

    async with anyio.create_task_group() as tg:
        tg.start_soon(kill)
        found = await run_shown(PAGE, "ends.py", plugin_client=start, command=echo())
    assert found["exit"] == PluginExit(-9)
    assert set(capsys.readouterr().out.splitlines()) == {"plugin was killed by SIGKILL", "-9 ()"}


def test_finding_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "myapp-plugin-thumbnails"
    program.touch(mode=0o755)
    names: dict[str, Any] = {"folder": tmp_path}
    exec(shown(PAGE, "discover.py"), names)
    assert capsys.readouterr().out == f"thumbnails {program}\n"
    assert names["client"].name == "thumbnails"


async def test_leaving_a_plugin_running_and_attaching_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"plugin_client": plugin_client, "Path": Path}
    record: ReattachConfig = (await run_shown(PAGE, "detach.py", command=echo(), **names))["record"]
    try:
        assert Path("plugin.json").stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240
        found = await run_shown(PAGE, "reattach.py", **names)
        assert found["client"].exit == PluginExit(0)
    except BaseException:
        os.kill(record.pid, signal.SIGKILL)
        raise


async def test_a_runner(tmp_path: Path) -> None:
    namespaces = ["unshare", "--map-root-user", "--mount", "true"]
    if (await anyio.run_process(namespaces, check=False, stderr=subprocess.DEVNULL)).returncode:
        pytest.skip("this system lets nobody make a file system of their own")
    names: dict[str, Any] = {"command": echo()}
    exec(compile(shown(PAGE, "namespace.py"), "docs/lifecycle.md", "exec"), names)
    with anyio.fail_after(10):
        await names["main"]()


async def test_waiting_for_a_debugger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # One that is there at once.
    (tmp_path / "debugpy.py").write_text(
        "def listen(address): return address\ndef wait_for_client(): pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    await run_shown(PAGE, "debugging.py", plugin_client=plugin_client, command=echo())
