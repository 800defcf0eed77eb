"""A host in Go with a plugin in Python."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .programs import FOLDER, conformance_plugin, python_plugin, run_host

# The programs are built in a fixture, which may take longer than a test.
pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


def test_calls_of_every_kind(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(
        go_programs, python_plugin(loop), "ping", "kv", "missing", "fail", "repeat", "collect",
        "echo", "deadline", mtls=mtls,
    )  # fmt: skip
    assert report.error == ""
    assert report.version == 1
    assert report.results == {
        "ping": "pong", "kv": 1, "missing": None, "repeat": 100, "collect": "a b c",
        "echo": "a b c",
    }  # fmt: skip
    statuses = {name: error["code"] for name, error in report.errors.items()}
    assert statuses == {
        "missing": "NotFound", "fail": "FailedPrecondition", "deadline": "DeadlineExceeded"
    }  # fmt: skip
    assert report.errors["missing"]["message"] == 'no key "no such key"'
    assert report.errors["fail"]["message"] == "nicht möglich: 100 %"
    assert report.ended_well


def test_large_messages_and_two_hundred_calls_at_once(
    go_programs: Path, loop: str, mtls: bool
) -> None:
    report = run_host(go_programs, python_plugin(loop), "many", "large", mtls=mtls)
    assert (report.error, report.errors) == ("", {})
    assert report.results == {"many": 200, "large": 64 << 20}
    assert report.ended_well


def test_the_plugin_is_gone_in_time_though_a_call_runs(
    go_programs: Path, loop: str, mtls: bool
) -> None:
    # The host itself waits two seconds, and says so when they were not enough.
    report = run_host(go_programs, python_plugin(loop), "stopped", mtls=mtls)
    assert report.results == {"stopped": True}
    assert report.errors["stopped"]["code"] in {"Canceled", "Unavailable"}
    assert report.ended_well


def test_a_plugin_killed_in_the_middle_of_a_call(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, python_plugin(loop), "killed", mtls=mtls)
    assert report.results == {"killed": True}
    assert report.errors["killed"]["code"] == "Unavailable"
    assert report.exit == "signal: killed"
    # It could not tidy up. The next one does.
    assert list(Path(tempfile.gettempdir()).iterdir())
    assert run_host(go_programs, python_plugin(loop), mtls=mtls).ended_well
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_a_plugin_that_exits_in_the_middle_of_a_call(go_programs: Path, loop: str) -> None:
    report = run_host(go_programs, python_plugin(loop), "crash-exit", mtls=True)
    assert report.results == {"crash-exit": True}
    assert report.errors["crash-exit"]["code"] == "Unavailable"
    assert report.exit == "exit status 3"
    run_host(go_programs, python_plugin(loop))


def test_connections_by_the_broker_in_both_directions(
    go_programs: Path, loop: str, mtls: bool
) -> None:
    report = run_host(
        go_programs, python_plugin(loop), "call-back", "open-back", "several-brokers",
        "brokers-at-once", mtls=mtls,
    )  # fmt: skip
    assert (report.error, report.errors) == ("", {})
    assert report.results == {
        "call-back": 42, "open-back": 3, "several-brokers": 5 * (42 + 3),
        "brokers-at-once": 20 * (42 + 3),
    }  # fmt: skip
    assert report.ended_well


SETS = pytest.mark.parametrize(
    ("offered", "served", "chosen"),
    [("1", "1,2", 1), ("2", "1,2", 2), ("2,1", "1,2", 2), ("1,2", "1", 1), ("1,2,3", "2", 2)],
)


@SETS
def test_the_highest_version_that_both_have(
    go_programs: Path, loop: str, mtls: bool, offered: str, served: str, chosen: int
) -> None:
    report = run_host(
        go_programs, python_plugin(loop, "--versions", served), versions=offered, mtls=mtls
    )
    assert (report.error, report.version) == ("", chosen)
    assert report.ended_well


@SETS
def test_the_handler_of_that_version_is_called(
    go_programs: Path, loop: str, mtls: bool, offered: str, served: str, chosen: int
) -> None:
    plugin = python_plugin(loop, "--each", "--versions", served)
    report = run_host(go_programs, plugin, "kv", versions=offered, mtls=mtls)
    assert (report.error, report.version, report.results) == ("", chosen, {"kv": chosen})
    assert report.ended_well


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_plugin_that_a_person_started_is_attached_to_and_left_running(
    go_programs: Path, loop: str, transport: str
) -> None:
    command = [*python_plugin(loop, "--each", "--versions", "1,2"), "--debug"]
    environment = os.environ | {"PLUGIN_SERVER_TRANSPORTS": transport}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as plugin:
        try:
            assert plugin.stdout is not None
            record = plugin.stdout.readline().strip()
            for _ in range(2):  # one host after the other
                report = run_host(
                    go_programs, [], "ping", "kv", "call-back", "open-back",
                    reattach=record, versions="1,2",
                )  # fmt: skip
                assert (report.error, report.errors, report.version) == ("", {}, 2)
                assert report.results == {"ping": "pong", "kv": 2, "call-back": 42, "open-back": 3}
                assert report.complaints == []
            assert plugin.poll() is None
            plugin.send_signal(signal.SIGINT)
            assert plugin.communicate(timeout=50)[0] == ""
            assert plugin.returncode == 0
            # Hosts in Go leave a plugin like this as it is, and their own sockets too.
            for socket in Path(tempfile.gettempdir()).glob("plugin*"):
                socket.unlink()
        finally:
            plugin.kill()


@pytest.mark.parametrize("form", [[], ["--each"]])
def test_no_version_that_both_have(
    go_programs: Path, loop: str, mtls: bool, form: list[str]
) -> None:
    report = run_host(
        go_programs, python_plugin(loop, *form, "--versions", "1,2"), versions="3", mtls=mtls
    )
    # The plugin names its lowest one, and the host refuses it.
    assert "Plugin version: 1, Client versions: [3]" in report.error
    run_host(go_programs, python_plugin(loop))


def test_a_wrong_cookie(go_programs: Path, loop: str) -> None:
    report = run_host(go_programs, python_plugin(loop), cookie="another")
    assert "Failed to read any lines from plugin's stdout" in report.error
    assert report.exit == "exit status 1"
    said = " ".join(line["@message"] for line in report.log)
    assert "INTEROP_COOKIE" in said
    assert "another" not in said


def test_the_service_of_go_plugins_own_tests(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, conformance_plugin(loop), "conformance", mtls=mtls)
    assert (report.error, report.errors) == ("", {})
    assert report.results == {"conformance": {"double": 42, "stream": [0, 2, 4], "ping": "pong"}}
    assert report.ended_well


def test_several_services_of_one_plugin(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, python_plugin(loop, "--both"), "kv", "add", "kv", mtls=mtls)
    assert (report.error, report.errors, report.results) == ("", {}, {"kv": 1, "add": 3})
    # Without it, what the host asks for is not there.
    report = run_host(go_programs, python_plugin(loop), "add", "ping", mtls=mtls)
    assert report.errors["add"]["code"] == "Unimplemented"
    assert report.ended_well


def test_the_plugin_says_what_it_serves(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, python_plugin(loop), "described", mtls=mtls)
    assert (report.error, report.errors) == ("", {})
    # What a plugin in Go says, with the application's services among them.
    services = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "interop.Peer",
        "plugin.GRPCBroker",
        "plugin.GRPCController",
        "plugin.GRPCStdio",
    ]
    assert report.results["described"] == {
        "v1": services, "v1alpha": services, "health of ": "SERVING",
        "health of plugin": "SERVING",
    }  # fmt: skip
    assert report.ended_well


def test_what_the_plugin_prints(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, python_plugin(loop), "print", mtls=mtls)
    assert report.results == {"print": True}
    assert report.stdout == "to stdout: é\n" + "o" * 5000 + "\n"
    assert report.stderr == "to stderr: é\n" + "e" * 5000 + "\n"
    assert report.ended_well


def test_what_the_plugin_printed_last_is_not_lost(go_programs: Path, loop: str, mtls: bool) -> None:
    # The host closes the connection as soon as Shutdown has been answered.
    report = run_host(go_programs, python_plugin(loop), "print-last", mtls=mtls)
    assert report.results == {"print-last": True}
    assert report.stdout == "o" * (1 << 20) + "\nno newline"
    assert report.stderr == "e" * (1 << 20) + "\nno newline"
    assert report.ended_well


def test_printing_for_the_service_of_go_plugins_own_tests(
    go_programs: Path, loop: str, mtls: bool
) -> None:
    report = run_host(
        go_programs, conformance_plugin(loop), "conformance", "conformance-stdio", mtls=mtls
    )
    assert (report.error, report.errors) == ("", {})
    assert report.stdout == "text value\nnumber 7\nfor stdout\n"
    assert report.stderr == "for stderr\n"
    assert report.ended_well


def test_log_lines_of_every_level(
    go_programs: Path, loop: str, mtls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUGIN_LOG_LEVEL", "TRACE")
    report = run_host(go_programs, python_plugin(loop), "log", mtls=mtls)
    lines = [
        (line["@level"], line["@message"], line["answer"])
        for line in report.log
        if "answer" in line
    ]
    assert lines == [
        (level, f"a line of {level}", "42") for level in ("trace", "debug", "info", "warn", "error")
    ]
    assert all("timestamp" in line for line in report.log if "answer" in line)
    assert (report.exit, report.was_forced) == ("exit status 0", False)


def test_a_log_line_that_is_too_long_is_cut(go_programs: Path, loop: str) -> None:
    report = run_host(go_programs, python_plugin(loop), "long-log", "ping", mtls=True)
    [line] = report.complaints
    assert line.startswith("begin é\né\n")
    # go-plugin logs what is longer in pieces, which mean nothing to it.
    assert len(line.encode()) < 65536


def test_a_plugin_of_a_plugin(go_programs: Path, loop: str, mtls: bool) -> None:
    # In the middle, what the outer host said to its plugin must not reach the inner one.
    command = python_plugin(loop, "--inner", str(go_programs / "plugin"))
    report = run_host(go_programs, command, "kv", mtls=mtls, group=os.getgid())
    assert (report.error, report.errors, report.results) == ("", {}, {"kv": 1})
    assert report.ended_well


def test_a_broken_handler_is_one_line_of_the_log(go_programs: Path, loop: str) -> None:
    report = run_host(go_programs, python_plugin(loop), "broken", "ping", mtls=True)
    assert report.errors["broken"]["code"] == "Unknown"
    assert report.results == {"ping": "pong"}
    [line] = [line for line in report.log if line["@level"] == "error"]
    assert "RuntimeError: broken" in line["stacktrace"]
    assert report.exit == "exit status 0"


def test_a_panic_is_an_error_in_the_log(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(go_programs, conformance_plugin(loop), "conformance-panic", mtls=mtls)
    assert report.results == {"conformance-panic": True}
    assert report.errors["conformance-panic"]["code"] == "Unavailable"
    assert "panic: told so" in report.complaints
    assert report.exit == "exit status 2"
    run_host(go_programs, python_plugin(loop))


def test_another_client_takes_the_plugin_over(go_programs: Path, loop: str) -> None:
    # Without AutoMTLS: go-plugin does not take over a plugin that has it.
    report = run_host(go_programs, python_plugin(loop), "reattached")
    assert (report.error, report.errors) == ("", {})
    assert report.results["reattached"] == {
        "ping": "pong", "kv": 1, "call-back": 42, "open-back": 3, "exited": True
    }  # fmt: skip
    assert report.ended_well


def test_tcp(go_programs: Path, loop: str, mtls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGIN_SERVER_TRANSPORTS", "tcp")
    report = run_host(
        go_programs, python_plugin(loop), "address", "kv", "brokers-at-once", mtls=mtls
    )
    assert (report.error, report.errors) == ("", {})
    assert report.results["address"]["network"] == "tcp"
    # The range that hosts in Go send.
    assert 10000 <= int(report.results["address"]["address"].removeprefix("127.0.0.1:")) <= 25000
    assert report.results["brokers-at-once"] == 20 * (42 + 3)
    assert report.ended_well


def test_sockets_for_a_group(go_programs: Path, loop: str, mtls: bool) -> None:
    report = run_host(
        go_programs, python_plugin(loop), "address", "call-back", "open-back", mtls=mtls,
        group=os.getgid(),
    )  # fmt: skip
    assert (report.error, report.errors) == ("", {})
    address = report.results["address"]
    assert (address["mode"], address["group"]) == ("-rw-rw----", os.getgid())
    assert report.ended_well


def test_an_interrupt_from_the_terminal_is_left_to_the_host(go_programs: Path, loop: str) -> None:
    report = run_host(go_programs, python_plugin(loop), "interrupted", "ping")
    assert (report.error, report.errors) == ("", {})
    assert report.results == {"interrupted": 1, "ping": "pong"}
    assert report.ended_well


def test_a_plugin_does_not_outlive_its_host(go_programs: Path, loop: str, mtls: bool) -> None:
    ended = subprocess.run(
        [go_programs / "host", f"-mtls={str(mtls).lower()}", "-do=kv,die", "--",
         *python_plugin(loop)],
        capture_output=True, timeout=50, check=False,
    )  # fmt: skip
    # Its standard error is the plugin's pipe no longer; what is left of both would be found at the
    # end of the test.
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_certificates_of_every_curve(
    go_programs: Path, loop: str, curve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUGIN_CERT_CURVE", curve)
    report = run_host(go_programs, python_plugin(loop), "kv", mtls=True)
    assert (report.error, report.results) == ("", {"kv": 1})
    assert report.ended_well


def test_a_plugin_that_insists_on_tls_refuses_a_host_without(
    go_programs: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUGIN_AUTO_MTLS", "required")
    report = run_host(go_programs, python_plugin(loop))
    assert "Failed to read any lines from plugin's stdout" in report.error
    assert report.exit == "exit status 1"


def test_a_program_is_run_only_if_its_checksum_is_right(
    go_programs: Path, loop: str, mtls: bool, tmp_path: Path
) -> None:
    # With a script in place of the interpreter, so that it is the plugin whose checksum is looked
    # at; and without arguments, since the first line of a script takes none.
    program = tmp_path / "plugin"
    command = python_plugin(loop)
    program.write_text(
        f"#!{sys.executable}\nimport sys, runpy\nsys.argv[1:] = {command[2:]!r}\n"
        f"runpy.run_path({str(FOLDER / 'python_plugin.py')!r}, run_name='__main__')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    checksum = hashlib.sha256(program.read_bytes()).hexdigest()
    report = run_host(go_programs, [str(program)], checksum=checksum, mtls=mtls)
    assert (report.error, report.results) == ("", {"ping": "pong"})
    assert report.ended_well
    program.write_text(program.read_text() + "\n")
    report = run_host(go_programs, [str(program)], checksum=checksum, mtls=mtls)
    assert report.error == "checksums did not match"
    assert report.exit == ""
