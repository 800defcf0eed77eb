"""Environments are made, with real installers, and plugins run in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from pyvider_rpcplugin import (
    ConfigError,
    EnvironmentProgress,
    PluginHost,
    RestartPolicy,
    RPCPluginError,
    TransportError,
    discover,
    plugin_client,
    python_plugin,
)
from pyvider_rpcplugin.sync import plugin_client_sync

from .packages import ROOT, library, wheel

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(120)]

INTERPRETER = os.path.realpath(sys.executable)
MAKER = str(Path(__file__).parent / "maker.py")
PLUGIN = """\
import os, sys
import rival
from pyvider_rpcplugin import plugin_server

class Rival:
    async def about(self) -> list[str]:
        return [rival.VERSION, sys.prefix, str(os.getpid())]

if __name__ == "__main__":
    plugin_server(handler=Rival()).run()
"""


class Rival:
    async def about(self) -> list[str]:
        raise NotImplementedError


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, str]:
    """Requirements: this library, and two versions of what cannot be installed twice."""
    found = {"library": f"the_library @ {library(tmp_path).as_uri()}"}
    for version in ("1.0", "2.0"):
        made = wheel(tmp_path, "rival", version, files={"rival.py": f"VERSION = {version!r}\n"})
        found[version] = f"rival @ {made.as_uri()}"
    return found


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


async def test_two_plugins_with_conflicting_requirements_run_under_one_host(
    tmp_path, wheels, script, monkeypatch
):
    # What the host would see is not what its plugins see.
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "rival.py").write_text("VERSION = 'that of the host'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "host"))
    steps: list[EnvironmentProgress] = []

    async def note(step: EnvironmentProgress) -> None:
        steps.append(step)

    seen: list[list[str]] = []
    lines: list[str] = []
    with anyio.fail_after(60):
        async with PluginHost() as host:
            for version in ("1.0", "2.0"):
                lines = ["# a comment", "", wheels["library"], wheels[version]]
                plugin = python_plugin(
                    script, env=lines, name=f"rival-{version}", cache=tmp_path / "cache",
                    on_progress=note,
                )  # fmt: skip
                client = await host.start(plugin)
                seen.append(await client.proxy(Rival).about())
                # It is the interpreter's process, and no wrapper's.
                assert int(seen[-1][2]) == client.pid
                assert os.readlink(f"/proc/{client.pid}/exe") == INTERPRETER
    assert [about[0] for about in seen] == ["1.0", "2.0"]
    assert len({about[1] for about in seen}) == 2
    kinds = [step.kind for step in steps if step.kind != "output"]
    assert kinds == ["creating", "installing", "ready"] * 2
    assert {step.plugin for step in steps} == {"rival-1.0", "rival-2.0"}
    assert any("rival-1.0" in step.line for step in steps if step.kind == "output")
    # The next start has nothing to make.
    steps.clear()
    plugin = python_plugin(script, env=lines, cache=tmp_path / "cache", on_progress=note)
    async with plugin_client(plugin):
        pass
    assert steps == []


async def test_a_script_says_itself_what_it_needs(tmp_path, wheels):
    script = tmp_path / "self.py"
    needs = "\n".join(f'#   "{wheels[one]}",' for one in ("library", "2.0"))
    block = (
        f"# /// script\n# requires-python = '>= 3.11'\n# dependencies = [\n{needs}\n# ]\n# ///\n"
    )
    script.write_text(block + PLUGIN)
    (tmp_path / "self.plugin.toml").write_text('description = "says it itself"\n')
    plugin = discover(folder=tmp_path, cache=tmp_path / "cache")["self"]
    with anyio.fail_after(60):
        async with plugin_client(plugin) as client:
            assert (await client.proxy(Rival).about())[0] == "2.0"
        script.write_text(block.replace(">= 3.11", "< 3") + PLUGIN)
        with pytest.raises(ConfigError, match=r"needs Python < 3, and its environment would have"):
            await plugin.prepare()


async def test_what_the_installer_says_last_is_in_the_error(tmp_path, script):
    plugin = python_plugin(
        script, env=["--no-index", "no-such-thing == 3"], cache=tmp_path / "cache"
    )
    with anyio.fail_after(60), pytest.raises(TransportError) as caught:
        await plugin_client(plugin).start()
    error = caught.value
    assert error.phase == "environment"
    assert error.message.startswith("the environment of the plugin plugin cannot be made: ")
    assert "no-such-thing" in str(error.hint)
    assert any("no-such-thing" in line for line in error.stderr_tail)
    assert error.exit_status
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def hosts(cache: Path, *requirements: str, count: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, MAKER, str(cache), *requirements],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(count)
    ]  # fmt: skip


def test_two_hosts_that_want_the_same_one_make_it_once(tmp_path, wheels):
    running = hosts(tmp_path / "cache", wheels["1.0"], count=2)
    said = [process.communicate(timeout=60)[0].splitlines() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    kinds = [line.split()[0] for lines in said for line in lines[:-1]]
    assert kinds.count("creating") == 1
    assert len({lines[-1] for lines in said}) == 1


async def test_tasks_of_one_host_that_want_the_same_one_make_it_once(tmp_path, wheels, script):
    kinds: list[str] = []
    plugin = python_plugin(
        script, env=[wheels["1.0"]], cache=tmp_path / "cache",
        on_progress=lambda step: kinds.append(step.kind),
    )  # fmt: skip
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(plugin.prepare)
    assert kinds.count("creating") == 1


# A project that is built by itself, without anything from elsewhere, and hangs if it should.
BACKEND = """\
import os, pathlib, time

def hook(*arguments, **options):
    here = pathlib.Path({folder!r})
    (here / "began").write_text(str(os.getpid()))
    while (here / "hang").exists():
        time.sleep(0.01)
    return []

get_requires_for_build_wheel = hook

def build_wheel(folder, *arguments):
    import sys
    sys.path.insert(0, {root!r})
    from tests.discovery.packages import wheel
    return wheel(pathlib.Path(folder), "hanging", files={{"hanging.py": ""}}).name
"""


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    project = tmp_path / "hanging"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "hanging"\nversion = "1.0"\n'
    )
    (project / "backend.py").write_text(BACKEND.format(folder=str(tmp_path), root=str(ROOT)))
    (tmp_path / "hang").touch()
    return project


def has_ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


async def begun(folder: Path) -> None:
    while not (folder / "began").exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)


async def test_a_maker_that_is_killed_half_way_leaves_nothing_that_counts(tmp_path, hanging):
    cache = tmp_path / "cache"
    with anyio.fail_after(80):
        [process] = hosts(cache, str(hanging), count=1)
        try:
            await begun(tmp_path)
        finally:
            process.send_signal(signal.SIGKILL)
            await anyio.to_thread.run_sync(process.wait)
            process.communicate()
        [folder] = [path for path in cache.iterdir() if path.is_dir()]
        assert not (folder / "plugin-environment.json").exists()
        (folder / "half").touch()
        (tmp_path / "hang").unlink()
        plugin = python_plugin("x.py", env=[str(hanging)], cache=cache)
        prepared = await plugin.prepare()
    assert Path(prepared.command[0]).parent.parent == folder
    assert not (folder / "half").exists()
    assert list(folder.rglob("hanging.py"))
    assert not (folder / "scratch").exists()


async def test_nothing_is_left_of_the_making_when_it_is_cancelled(tmp_path, hanging):
    cache = tmp_path / "cache"
    client = plugin_client(python_plugin("x.py", env=[str(hanging)], cache=cache))
    with anyio.fail_after(80):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.start)
            await begun(tmp_path)
            tg.cancel_scope.cancel()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    # It has ended, though whoever inherits orphans may not have asked for its status yet.
    assert has_ended(int((tmp_path / "began").read_text()))


async def test_stopping_a_client_ends_the_making(tmp_path, hanging):
    cache = tmp_path / "cache"
    client = plugin_client(python_plugin("x.py", env=[str(hanging)], cache=cache))

    async def start() -> None:
        with pytest.raises(RPCPluginError):
            await client.start()

    with anyio.fail_after(80):
        async with anyio.create_task_group() as tg:
            tg.start_soon(start)
            await begun(tmp_path)
            await client.stop()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_program_without_an_event_loop_starts_one(tmp_path, wheels, script):
    lines = [wheels["library"], wheels["1.0"]]
    plugin = python_plugin(script, env=lines, cache=tmp_path / "cache")
    with plugin_client_sync(plugin) as client:
        assert client.proxy(Rival).about()[0] == "1.0"


async def test_a_client_reloads_into_another_environment(tmp_path, wheels, script):
    plugins = [
        python_plugin(script, env=[wheels["library"], wheels[one]], cache=tmp_path / "cache")
        for one in ("1.0", "2.0")
    ]
    with anyio.fail_after(80):
        async with plugin_client(plugins[0], restart=RestartPolicy()) as client:
            rival = client.proxy(Rival)
            assert (await rival.about())[0] == "1.0"
            await client.reload(plugins[1])
            assert (await rival.about())[0] == "2.0"


async def test_another_interpreter_brings_its_own_pip(tmp_path, wheels, script):
    lines = [wheels["library"], wheels["2.0"]]
    plugin = python_plugin(
        script, env=lines, cache=tmp_path / "cache", python=INTERPRETER, installer="pip"
    )
    with anyio.fail_after(80):
        async with plugin_client(plugin) as client:
            version, prefix, _ = await client.proxy(Rival).about()
    assert version == "2.0"
    assert [one async for one in anyio.Path(prefix).glob("lib/python*/site-packages/pip")]


async def test_a_manifest_lists_requirements(tmp_path, wheels, script):
    assert script.name == "plugin.py"
    needs = ", ".join(f'"{wheels[one]}"' for one in ("library", "1.0"))
    (tmp_path / "plugin.plugin.toml").write_text(f"name = 'rival'\nenvironment = [{needs}]\n")
    plugin = discover(folder=tmp_path, cache=tmp_path / "cache")["rival"]
    with anyio.fail_after(80):
        async with plugin_client(plugin) as client:
            assert (await client.proxy(Rival).about())[0] == "1.0"


async def test_uv_makes_them_where_it_is(tmp_path, wheels, script, monkeypatch):
    uv = pytest.importorskip("uv", reason="uv is not installed here")
    monkeypatch.setenv("PATH", os.path.dirname(uv.find_uv_bin()), prepend=os.pathsep)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    lines = [wheels["library"], wheels["1.0"]]
    plugin = python_plugin(script, env=lines, cache=tmp_path / "cache", installer="uv")
    with anyio.fail_after(60):
        async with plugin_client(plugin) as client:
            version, prefix, pid = await client.proxy(Rival).about()
            assert (version, int(pid)) == ("1.0", client.pid)
    assert "uv = " in await anyio.Path(prefix, "pyvenv.cfg").read_text()
    plugin = python_plugin(script, env=["no-such-thing==3", "--no-index"], cache=tmp_path / "cache")
    with anyio.fail_after(60), pytest.raises(TransportError, match="uv exited") as caught:
        await plugin.prepare()
    assert "no-such-thing" in str(caught.value.hint)


async def test_uv_is_only_asked_for_where_it_is(tmp_path, script, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    plugin = python_plugin(script, env=["x"], cache=tmp_path / "cache", installer="uv")
    with pytest.raises(ConfigError, match="uv is not on PATH"):
        await plugin.prepare()
