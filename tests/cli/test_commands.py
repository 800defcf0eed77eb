"""Each command, run as a program."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from pyvider_rpcplugin import __version__, context
from pyvider_rpcplugin.testing import plugin_command, scripted_plugin
from tests.interop.go.conftest import go_programs  # noqa: F401 - a fixture

from .program import GREETER, PROTOBUF, ROOT, as_json, cli, printed

pytestmark = pytest.mark.process

OF_GO = ("--cookie", "INTEROP_COOKIE=interop")


class Piece(msgspec.Struct):
    name: str
    data: bytes


class Store:
    async def sizes(self, pieces: list[Piece]) -> dict[str, int]:
        return {piece.name: len(piece.data) for piece in pieces}

    async def joined(self, parts: AsyncIterator[bytes], end: bytes = b"") -> bytes:
        return b"".join([part async for part in parts]) + end

    async def who(self) -> str:
        metadata = context().metadata
        assert metadata is not None
        return str(metadata["user"])


def test_it_says_what_it_can_do():
    shown = printed("--help")
    for name in ("inspect", "call", "run", "doctor", "check", "certs", "gen"):
        assert name in shown
    assert printed("--version").strip() == __version__


def test_without_its_libraries_it_says_which_and_how():
    code = "import sys; sys.modules['typer'] = None; from pyvider_rpcplugin.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "needs typer" in done.stderr
    assert "extra `cli`" in done.stderr


# inspect


@pytest.mark.parametrize("loop", [(), ("--trio",)], ids=["asyncio", "trio"])
def test_inspect_shows_a_typed_plugin(loop: tuple[str, ...]):
    seen = as_json("inspect", "--json", *loop, *GREETER)
    assert seen["command"] == GREETER
    assert seen["health"] == "SERVING"
    assert seen["handshake"]["version"] == 1
    assert seen["handshake"]["mutual_tls"] is True
    assert seen["certificate"]["names"] == ["DNS:localhost"]
    assert seen["start_seconds"] > 0
    assert seen["memory_bytes"] > 1_000_000
    [greeter] = [service for service in seen["services"] if service["own"]]
    assert greeter["form"] == "typed"
    assert greeter["methods"]["countdown"]["kind"] == "unary_stream"


def test_inspect_shows_a_plugin_with_protocol_buffers_to_a_person():
    shown = printed("inspect", "--no-mtls", *PROTOBUF)
    assert "greeter.Greeter  protobuf" in shown
    assert "(greeter.CountdownRequest)  -> stream of greeter.CountdownReply" in shown
    assert "SERVING" in shown
    assert re.search(r"encryption +none", shown)


@pytest.mark.interop
def test_inspect_shows_a_plugin_in_go(go_programs: Path):  # noqa: F811
    seen = as_json("inspect", "--json", *OF_GO, str(go_programs / "plugin"))
    assert {service["name"] for service in seen["services"] if service["own"]} >= {"interop.Peer"}
    assert "521" in seen["certificate"]["key"]


def test_inspect_says_why_a_plugin_does_not_start():
    done = cli("inspect", *scripted_plugin("stderr:no database", "exit:3"))
    assert done.returncode == 1
    assert "status 3" in done.stderr
    assert "no database" in done.stderr
    assert done.stdout == ""


# call


def call(*words: str, plugin: list[str] = GREETER, options: tuple[str, ...] = (), **more) -> str:
    return printed("call", *options, *plugin, "--", *words, **more)


def test_call_calls_typed_methods():
    assert call("Greeter/hello", '{"name": "Ada", "loud": true}') == '"Hello, Ada!"\n'
    assert call("countdown", '{"start": 3}', options=("--trio",)) == "3\n2\n1\n"


def test_call_takes_bytes_as_base64_wherever_they_are():
    plugin = plugin_command(Store)
    pieces = '{"pieces": [{"name": "one", "data": "aGVsbG8="}, {"name": "two", "data": ""}]}'
    assert json.loads(call("sizes", pieces, plugin=plugin)) == {"one": 5, "two": 0}
    assert call("joined", '{"end": "IQ=="}', '"aGk="', '"aG8="', plugin=plugin) == '"aGlobyE="\n'
    done = cli("call", *plugin, "--", "joined", "{}", '"no base64"')
    assert done.returncode == 1
    assert "base64" in done.stderr


def test_metadata_goes_along_with_a_call():
    options = ("--metadata", "user=ada")
    assert call("Store/who", plugin=plugin_command(Store), options=options) == '"ada"\n'


def test_call_calls_methods_with_protocol_buffers():
    assert json.loads(call("Greeter/Hello", '{"name": "Ada"}', plugin=PROTOBUF)) == {
        "text": "Hello, Ada!"
    }
    lines = call("greeter.Greeter/Countdown", '{"start": 2}', plugin=PROTOBUF).splitlines()
    assert len(lines) == 2


@pytest.mark.interop
def test_call_streams_lines_to_a_plugin_in_go(go_programs: Path):  # noqa: F811
    lines = "".join(f'{{"key": "{name}"}}\n' for name in "abc")
    plugin = [str(go_programs / "plugin")]
    told = call("Peer/Echo", "-", plugin=plugin, options=OF_GO, stdin=lines)
    assert [json.loads(line)["key"] for line in told.splitlines()] == ["a", "b", "c"]


def test_a_call_that_fails_has_status_1_and_says_how():
    arguments = ["call", *GREETER, "--", "hello", '{"wrong": "Ada"}']
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "INVALID_ARGUMENT" in done.stderr
    said = json.loads(cli("call", "--json", *arguments[1:]).stderr)
    assert said["status"] == "INVALID_ARGUMENT"


def test_a_method_that_is_not_there_is_named_with_those_that_are():
    done = cli("call", *GREETER, "--", "Greeter/nothing")
    assert done.returncode == 1
    assert "Greeter/hello" in done.stderr


def test_the_deadline_of_a_call_counts():
    done = cli("call", "--deadline", "0.2", *scripted_plugin(), "--", "Scripted/hang")
    assert done.returncode == 1
    assert "DEADLINE_EXCEEDED" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["call", *GREETER],
        ["call", "--", "Greeter/hello"],
        ["inspect"],
        ["inspect", "--cookie", "word", *GREETER],
        ["inspect", "--set", "nothing=1", *GREETER],
        ["dance"],
    ],
    ids=" ".join,
)
def test_wrong_usage_has_status_2(arguments: list[str]):
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


# run


def test_run_keeps_a_plugin_running_until_ctrl_c(tmp_path: Path):
    begun = tmp_path / "begun"
    command = scripted_plugin("stderr:hello", f"once:{begun}", "signal:SIGKILL")
    with subprocess.Popen(
        [sys.executable, "-m", "pyvider_rpcplugin", "run", "--json", *command],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1].get("event") == "started":
                os.kill(seen[-1]["pid"], signal.SIGKILL)
                break
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1].get("event") == "started":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    events = [one["event"] for one in seen if "event" in one]
    assert events[:3] == ["started", "exited", "restarting"]
    assert events[-1] == "started"
    assert '"stopped"' in out
    assert any("hello" in one.get("log", "") for one in seen)


def test_run_ends_with_a_plugin_that_cannot_be_started():
    done = cli("run", *scripted_plugin("exit:3"))
    assert done.returncode == 1
    assert "status 3" in done.stderr


# check


@pytest.mark.slow
def test_check_tells_whether_a_plugin_keeps_to_the_contract():
    shown = printed("check", *GREETER)
    assert "ok    shutdown: " in shown
    assert "0 failed" in shown
    report = as_json("check", "--json", "--timeout", "2", sys.executable, "-c", "", status=1)
    assert report["passed"] is False


# certs


def test_certs_are_made_shown_and_checked(tmp_path: Path):
    folder = tmp_path / "certs"
    made = printed("certs", "make", str(folder), "--host", "localhost", "--days", "90").split()
    assert [Path(path).name for path in made] == ["ca.crt", "ca.key", "plugin.crt", "plugin.key"]
    again = as_json("certs", "make", str(folder), "--name", "host", "--days", "5", "--json")
    assert [Path(path).name for path in again] == ["host.crt", "host.key"]
    [shown] = as_json("certs", "show", "--json", str(folder / "plugin.crt"))
    assert shown["names"] == ["DNS:localhost"]
    assert shown["issuer"] == "CN=a private authority"
    assert "fingerprint" in printed("certs", "show", str(folder / "plugin.crt"))
    assert "90 days left" in printed("certs", "check", str(folder / "plugin.crt"))
    files = [str(folder / name) for name in ("plugin.crt", "host.crt")]
    rows = as_json("certs", "check", "--json", *files, status=1)
    assert [row["ok"] for row in rows] == [True, False]
    assert cli("certs", "make", str(folder)).returncode == 1  # It does not overwrite.


def test_a_file_without_certificates_is_an_error(tmp_path: Path):
    (tmp_path / "empty.pem").write_text("")
    done = cli("certs", "show", str(tmp_path / "empty.pem"))
    assert done.returncode == 1
    assert "certificate" in done.stderr


# gen


@pytest.mark.slow
def test_gen_makes_modules_out_of_proto_files(tmp_path: Path):
    (tmp_path / "greeter.proto").write_text((ROOT / "examples/protobuf/greeter.proto").read_text())
    written = as_json("gen", "stubs", str(tmp_path), "--json")
    assert [Path(path).name for path in written] == [
        "greeter_grpc.py", "greeter_pb2.py", "greeter_pb2.pyi",
    ]  # fmt: skip
    done = cli("gen", "stubs", str(tmp_path), "--kind", "nobody's")
    assert done.returncode == 1
    assert "grpclib" in done.stderr


def test_gen_makes_a_proto_file_out_of_a_typed_class(tmp_path: Path):
    folder = ROOT / "examples" / "quickstart"
    text = printed("gen", "proto", "greeter_plugin:Greeter", cwd=folder)
    assert "service Greeter {" in text
    out = tmp_path / "greeter.proto"
    printed("gen", "proto", "greeter_plugin:Greeter", "--out", str(out), cwd=folder)
    assert out.read_text() == text
    assert cli("gen", "proto", "greeter_plugin:Nobody", cwd=folder).returncode == 2


# new


@pytest.mark.slow
@pytest.mark.parametrize("form", ["typed", "grpclib", "grpcio", "betterproto2"])
def test_new_begins_a_plugin_whose_host_and_tests_run(form: str, tmp_path: Path):
    if form == "betterproto2":
        pytest.importorskip("betterproto2_compiler")
        if shutil.which("ruff") is None:
            pytest.skip("betterproto2's compiler calls ruff, which is not on the PATH")
    written = as_json("new", "night_shop", "--form", form, "--json", cwd=tmp_path)
    assert "night_shop/night_shop_plugin.py" in written
    folder = tmp_path / "night_shop"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def done(*words: str) -> str:
        run = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=50, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    assert done("night_shop_host.py") == "Hello, Ada!\n"
    quiet = ["-q", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    # The last of them is about the library.
    assert "4 passed" in done("-m", "pytest", *quiet, "-k", "process")
    assert "6 tests" in done("-m", "pytest", *quiet, "--collect-only")
    if form == "typed":
        done("-m", "mypy", "--strict", "--cache-dir", os.devnull, "--explicit-package-bases", ".")


def test_new_touches_nothing_that_is_there(tmp_path: Path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "notes").write_text("mine")
    done = cli("new", "shop", cwd=tmp_path)
    assert done.returncode == 2
    assert "something in shop already" in done.stderr
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["notes"]
    assert cli("new", "night-shop", cwd=tmp_path).returncode == 2
    assert cli("new", "shop", "--form", "nobodys", cwd=tmp_path).returncode == 2
