"""What docs/supervision.md shows, works."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import PoolPolicy, RestartPolicy, plugin_client, plugin_pool
from tests.pages import DOCS, run_shown
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

PAGE = "supervision.md"


class Greeter:
    """A stub with the page's method, which calls the tests' service."""

    def __init__(self, channel: Any) -> None:
        echo_stub = EchoStub(channel)
        self.Hello = echo_stub.Unary


def hello_request(name: str) -> EchoRequest:
    return EchoRequest(text=name)


@pytest.mark.parametrize("name", ["restart", "idempotent", "lazy", "reload", "pool", "events"])
async def test_the_page_shows_what_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {
        "plugin_client": plugin_client,
        "plugin_pool": plugin_pool,
        "RestartPolicy": RestartPolicy,
        "GreeterStub": Greeter,
        "HelloRequest": hello_request,
        "command": echo(),
        "new_command": echo("--loop", "trio"),
    }
    with anyio.fail_after(20):
        seen = await run_shown(PAGE, name, **names)
    if name == "events":
        assert seen["kinds"] == ["started", "stopped"]
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == seen["kinds"]


@pytest.mark.parametrize("kind", [RestartPolicy, PoolPolicy])
def test_the_page_names_every_option(kind: Any) -> None:
    names = set(re.findall(r"`(\w+)`", (DOCS / PAGE).read_text()))
    assert set(kind.__struct_fields__) - {"max_size"} <= names
