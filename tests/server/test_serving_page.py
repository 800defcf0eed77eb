"""What docs/serving.md shows, works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from pyvider_rpcplugin import ReattachConfig, plugin_client, plugin_server
from tests.pages import run_shown, shown
from tests.plugins.misc_plugin import Misc

from .test_debug import Debugged

ROOT = Path(__file__).parents[2]
PAGE = "serving.md"

pytestmark = pytest.mark.process


class Greeter(Protocol):
    """What the page's plugins serve, as their hosts know it."""

    async def hello(self, name: str) -> str: ...


def program(folder: Path, name: str) -> list[str]:
    (folder / name).write_text(shown(PAGE, name))
    return [sys.executable, "-W", "error", str(folder / name)]


async def test_a_plugin_of_several_versions(tmp_path: Path) -> None:
    command = program(tmp_path, "versions_plugin.py")
    said = {}
    for offered in ([4, 5], [6, 7]):
        with anyio.fail_after(5):
            async with plugin_client(command, protocol_versions=offered) as client:
                said[client.negotiated_version] = await client.proxy(Greeter).hello("Ada")
    assert said == {5: "Hello, Ada.", 6: "Hello, Ada. (version 6)"}
    await run_shown(PAGE, "versions_host.py", plugin_client=plugin_client, command=command)


def test_a_program_that_reads_its_arguments_itself(tmp_path: Path) -> None:
    command = [*program(tmp_path, "debug_arguments.py"), "--attach"]
    with Debugged(command) as plugin:
        assert plugin.record().protocol_version == 1
        names = {"plugin_client": plugin_client, "record": plugin.line}
        anyio.run(lambda: run_shown(PAGE, "debug_host.py", **names))
        assert plugin.end()[0] == 0


async def test_a_program_that_serves_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    await run_shown(PAGE, "debug_serve.py", server=plugin_server(handler=Misc()))
    assert ReattachConfig.from_json(capsys.readouterr().out).test


async def test_a_plugin_that_says_how_it_is() -> None:
    from pyvider_rpcplugin.services import ServingStatus, check_health

    server = plugin_server(handler=Misc(), standalone=True)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            exec(shown(PAGE, "health.py"), {"server": server})
            assert await check_health(client.grpc_channel) is ServingStatus.NOT_SERVING


async def test_a_program_that_is_several_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins.py").write_text(shown(PAGE, "mux_plugin.py"))
    (tmp_path / "counter.py").write_text("class Counter:\n    async def count(self) -> int: ...\n")
    monkeypatch.chdir(tmp_path)
    await run_shown(PAGE, "mux_host.py", plugin_client=plugin_client, sys=sys)
    with anyio.fail_after(5):
        async with plugin_client([sys.executable, "plugins.py", "greeter"]) as client:
            assert await client.proxy(Greeter).hello("Ada") == "Hello, Ada."


async def test_a_plugin_that_is_told_of_its_end() -> None:
    names: dict[str, Any] = {"anyio": anyio, "plugin_server": plugin_server}
    exec(shown(PAGE, "on_shutdown.py"), names | {"Handler": lambda ending: Misc()}, names)
    server: Any = names["server"]
    server.standalone = True
    with anyio.fail_after(5):
        async with server.serve():
            await server.stop()
    assert names["ending"].is_set()
