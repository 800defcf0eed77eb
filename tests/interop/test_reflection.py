"""Tools that know nothing of a plugin find out what it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import FOLDER
from tests.server.test_debug import Debugged

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.interop, pytest.mark.process]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("link", ["unix", "tcp"])
def test_grpcios_client_finds_a_service_and_calls_it(loop: str, link: str) -> None:
    command = [sys.executable, str(FOLDER / "echo_program.py"), loop, "--debug"]
    with Debugged(command, PLUGIN_SERVER_TRANSPORTS=link) as plugin:
        record = plugin.record()
        assert record.network == link
        target = f"unix:{record.address}" if link == "unix" else record.address
        looked = subprocess.run(
            [sys.executable, "-m", "tests.interop.peers.grpcio_reflection", target],
            env=os.environ | {"PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert looked.returncode == 0, looked.stderr
        assert plugin.end()[0] == 0
    assert json.loads(looked.stdout) == {
        "services": [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "plugin.GRPCBroker",
            "plugin.GRPCStdio",
            "testing.echo.Echo",
        ],
        "methods": ["Unary", "ServerStream", "ClientStream", "Bidi"],
        "answer": "found",
        "broker is described": False,
        "health": {
            "Check": {"status": "SERVING"},
            "List": {
                "statuses": {
                    name: {"status": "SERVING"} for name in ("", "plugin", "testing.echo.Echo")
                }
            },
            "Watch": {"status": "SERVING"},
        },
    }
