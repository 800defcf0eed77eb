"""`top` and `bench`, run as programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from .program import GREETER, PROTOBUF, ROOT, as_json, cli, printed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

# Calls its plugin until its standard input ends.
HOST = """
import sys
import anyio
from pyvider_rpcplugin import RestartPolicy, plugin_client
from pyvider_rpcplugin.admin import admin_socket
from tests.plugins.counter_plugin import Counter

async def main():
    client = plugin_client([sys.executable, "tests/plugins/counter_plugin.py"], restart=RestartPolicy())
    async with client, admin_socket(client) as shown, anyio.create_task_group() as tg:
        async def work():
            counter = client.proxy(Counter)
            while True:
                await counter.add(1)
                try:
                    await counter.fail()
                except LookupError:
                    pass
                except Exception:
                    pass
        tg.start_soon(work)
        print(shown.path, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        tg.cancel_scope.cancel()

anyio.run(main, backend=sys.argv[1])
"""


@pytest.fixture(scope="module")
def runtime() -> Iterator[str]:
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        yield folder


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def host(runtime: str, request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOST, request.param],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        yield process.pid, path
        process.communicate("", timeout=50)
    assert process.returncode == 0


def test_top_shows_the_plugins_of_a_host(host: tuple[int, str]) -> None:
    pid, path = host
    shown = printed("top", "--once", "--interval", "0.2")
    assert shown.startswith(f"host {pid}  python")
    head, row = shown.splitlines()[1:]
    assert head.split()[:4] == ["plugin", "process", "up", "calls/s"]
    assert re.match(r"counter_plugin +\d+ +\d+ s +[1-9][\d,]* +[\d.,]+ ms", row)
    [seen] = as_json("top", "--once", "--interval", "0.2", "--json", str(pid))["plugins"]
    assert seen["name"] == "counter_plugin"
    assert seen["calls_per_second"] > 0
    assert 0 < seen["p50_seconds"] <= seen["p99_seconds"]
    assert seen["errors"] == seen["errors_by_status"]["UNKNOWN"] > 0
    assert (seen["restarts"], len(seen["pids"])) == (0, 1)
    assert seen["memory_bytes"] > 1_000_000
    assert as_json("top", "--trio", "--once", "--interval", "0.1", "--json", path)["host"] == pid


def test_top_goes_on_until_the_host_has_ended(runtime: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOST, "asyncio"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        command = [sys.executable, "-m", "pyvider_rpcplugin", "top", "--json", "--interval", "0.05"]
        with subprocess.Popen(
            [*command, path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as top:
            assert top.stdout is not None
            assert json.loads(top.stdout.readline())["host"] == process.pid
            assert json.loads(top.stdout.readline())["host"] == process.pid
            process.communicate("", timeout=50)
            _, said = top.communicate(timeout=50)
        assert top.returncode == 0
        assert said == "the host has ended\n"


def test_top_says_why_there_is_nothing_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    for words, said in (
        ([], "no host of this user's shows anything"),
        (["4194999"], "process 4194999 shows nothing"),
        (["./none.sock"], "there is no such socket"),
    ):
        done = cli("top", *words)
        assert done.returncode == 1
        assert said in done.stderr


QUICK = ("--starts", "1", "--seconds", "0.05")


@pytest.mark.parametrize("loop", [(), ("--trio",)], ids=["asyncio", "trio"])
def test_bench_measures_the_start_and_the_calls_of_a_method(loop: tuple[str, ...]) -> None:
    seen = as_json(
        "bench", "--json", *loop, *QUICK, "--callers", "1,4", *GREETER,
        "--", "Greeter/hello", '{"name": "Ada"}',
    )  # fmt: skip
    assert seen["command"] == GREETER
    assert seen["method"] == "Greeter/hello"
    assert seen["start_seconds"]["min"] == seen["start_seconds"]["median"] > 0
    assert [one["callers"] for one in seen["rounds"]] == [1, 4]
    for one in seen["rounds"]:
        assert one["calls"] > 0
        assert one["calls_per_second"] > 0
        latency = one["latency"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
        assert one["errors"] == {}


def test_bench_shows_a_table_to_a_person_and_needs_no_method() -> None:
    shown = printed("bench", *QUICK, "--callers", "2", *GREETER)
    assert re.match(r"start: \d+ ms \(from \d+ to \d+, of 1\)", shown)
    assert "calls of grpc.health.v1.Health/Check:" in shown
    assert re.search(r"^ +2 +[\d,]+ +[\d.]+ ms", shown, re.MULTILINE)


def test_bench_measures_protocol_buffers_and_streamed_results() -> None:
    method = ("greeter.Greeter/Countdown", '{"start": 2}')
    seen = as_json("bench", "--json", *QUICK, "--callers", "1", *PROTOBUF, "--", *method)
    assert seen["rounds"][0]["calls"] > 0


def test_bench_counts_failures_and_says_what_it_cannot_do() -> None:
    counter = [sys.executable, str(ROOT / "tests" / "plugins" / "counter_plugin.py")]
    done = cli("bench", *QUICK, *counter, "--", "Counter/fail")
    assert done.returncode == 1
    assert "UNKNOWN" in done.stderr
    done = cli("bench", *QUICK, *counter, "--", "Counter/total")
    assert done.returncode == 1
    assert "takes a stream" in done.stderr
    late = ("--deadline", "0.00002", "--callers", "1")
    done = cli("bench", *QUICK, *late, *counter, "--", "Counter/add", '{"number": 1}')
    assert done.returncode == 1
    assert "DEADLINE_EXCEEDED" in done.stderr + done.stdout
    for wrong in (("--callers", "0", "x"), ("--callers", "a", "x"), ("x", "--", "a", "b", "c")):
        assert cli("bench", *wrong).returncode == 2
