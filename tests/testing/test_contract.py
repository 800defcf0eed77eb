"""The contract check: correct plugins pass, and each way of being none is found."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

from pyvider_rpcplugin import ConfigError
from pyvider_rpcplugin.testing import ContractReport, check_plugin
from pyvider_rpcplugin.testing.contract import RULES
from tests.interop.go.conftest import go_programs, loop  # noqa: F401 - fixtures
from tests.interop.go.programs import python_plugin

pytestmark = [pytest.mark.process, pytest.mark.slow]

HERE = Path(__file__).parent
GREETER = HERE.parents[1] / "examples" / "quickstart" / "greeter_plugin.py"
OUTSIDE: dict[str, Any] = {"magic_cookie_key": "INTEROP_COOKIE", "magic_cookie_value": "interop"}

# Each violation, and the rules that are found broken.
PLANTED = {
    "serves without a cookie": {"cookie-missing", "cookie-wrong"},
    "status 0 without a cookie": {"cookie-missing", "cookie-wrong"},
    "speaks on stdout without a cookie": {"cookie-missing", "cookie-wrong"},
    "says nothing without a cookie": {"cookie-missing", "cookie-wrong"},
    "noise before the line": {"line-alone"},
    "half a line": {"line", "mtls-certificate"},
    "a version that nobody offered": {"line", "mtls-certificate"},
    "the lowest version": {"version"},
    "a socket elsewhere": {"socket-folder"},
    "a port out of range": {"port-range"},
    "no certificate": {"mtls-certificate"},
    "everybody is let in": {"mtls-strangers"},
    "no health service": {"health", "health-unknown"},
    "is not well": {"health"},
    "knows every service": {"health-unknown"},
    "no service for output": {"stdio"},
    "no broker": {"broker"},
    "does not end when asked to": {"shutdown"},
    "status 3": {"shutdown-status"},
    "ends at ctrl-c": {"interrupt"},
    "leaves its socket": {"socket-removed"},
    "does not end at sigterm": {"terminate"},
}


def broken(report: ContractReport) -> set[str]:
    return {check.name for check in report.failures}


async def test_a_plugin_of_ours_keeps_to_it():
    report = await check_plugin([sys.executable, str(GREETER)])
    assert report.passed, str(report)
    assert not report.failures


async def test_a_plugin_of_ours_keeps_to_it_over_tcp():
    report = await check_plugin(
        [sys.executable, str(GREETER)], env={"PLUGIN_SERVER_TRANSPORTS": "tcp"}
    )
    assert report.passed, str(report)
    assert report["port-range"].outcome == "passed"
    assert report["socket-folder"].outcome == "skipped"


@pytest.mark.interop
async def test_a_plugin_with_several_versions_keeps_to_it(loop: str):  # noqa: F811
    command = python_plugin(loop, "--versions", "1,2")
    report = await check_plugin(command, **OUTSIDE, protocol_versions=[1, 2])
    assert report.passed, str(report)
    assert report["version-lower"].outcome == "passed"


@pytest.mark.interop
async def test_plugins_in_go_keep_to_it(go_programs: Path):  # noqa: F811
    command = [str(go_programs / "plugin"), "-versions=1,2"]
    report = await check_plugin(command, **OUTSIDE, protocol_versions=[1, 2])
    assert report.passed, str(report)
    # What go-plugin itself does not do is only recommended.
    assert broken(report) <= {"host-gone"}


# What is wrong is in the plugin, whatever loop the check itself runs on: each is tried on one.
@pytest.mark.parametrize(
    ("violation", "anyio_backend"),
    list(zip(PLANTED, itertools.cycle(["asyncio", "trio"]), strict=False)),
)
async def test_a_violation_is_found(violation: str):
    report = await check_plugin(
        [sys.executable, str(HERE / "planted.py"), violation],
        protocol_versions=[1, 2] if "version" in violation else [1],
        handshake_timeout=3.0 if violation == "half a line" else 10.0,
    )
    assert broken(report) == PLANTED[violation], str(report)
    assert not report.passed
    for check in report.failures:
        assert check.why


async def test_a_plugin_that_does_not_start_breaks_the_first_rules_and_the_others_are_skipped():
    report = await check_plugin([sys.executable, "-c", "import sys; sys.exit('no such module')"])
    assert broken(report) == {"line", "mtls-certificate"}
    assert "no such module" in report["line"].why
    assert report["shutdown"].outcome == "skipped"


async def test_a_report_is_for_people_and_for_programs():
    report = await check_plugin([sys.executable, "-c", ""])
    assert [check.name for check in report.checks] == list(RULES)
    found = report.to_dict()
    assert found["passed"] is False
    assert found["checks"][0] == {
        "name": "cookie-missing",
        "outcome": "failed",
        "why": "its exit status was 0",
        "required": True,
        "rule": RULES["cookie-missing"],
    }
    assert "FAIL  cookie-missing: " in str(report)
    with pytest.raises(KeyError):
        report["nothing"]


async def test_what_cannot_be_started_and_wrong_settings_are_errors(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        await check_plugin([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="magic_cooky_key"):
        await check_plugin([sys.executable], magic_cooky_key="X")
