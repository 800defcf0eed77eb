"""The programs in docs/asyncio.md run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aio.test_frameworks import get, live
from tests.pages import shown

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
GREETER = ROOT / "examples" / "protobuf"


def test_the_lifespan(monkeypatch):
    pytest.importorskip("starlette")
    monkeypatch.syspath_prepend(GREETER)
    monkeypatch.chdir(GREETER)
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    names: dict[str, object] = {}
    exec(shown("asyncio.md", "lifespan"), names)

    async def requests(application):
        assert await get(application, "/hello/Ada") == ["Hello, Ada!"]

    asyncio.run(asyncio.wait_for(live(names["application"], requests), 15))


def test_the_fixture(tmp_path):
    pytest.importorskip("pytest_asyncio")
    file = tmp_path / "test_shown.py"
    file.write_text(shown("asyncio.md", "fixture"))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", "-W", "error"]
    words += ["-o", "asyncio_default_fixture_loop_scope=function"]
    words += ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), str(file)]
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(GREETER)}
    done = subprocess.run(
        words,
        cwd=GREETER,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_loop_that_is_run_by_hand():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", shown("asyncio.md", "by hand")],
        cwd=GREETER,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Hello, Ada!",
        "ended: PluginExit(status=0, stderr_tail=())",
    ]
