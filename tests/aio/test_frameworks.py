"""Web frameworks' lifespans, and pytest-asyncio's fixtures in a pytest of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.aio import lifespan
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


async def live(application: Any, requests: Any) -> None:
    """Run an application as a server does: its lifespan in one task, requests in others."""
    to_application: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    from_application: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    state: dict[str, object] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task = asyncio.create_task(application(scope, to_application.get, from_application.put))
    await to_application.put({"type": "lifespan.startup"})
    assert (await from_application.get())["type"] == "lifespan.startup.complete"

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        await application({**scope, "state": dict(state)}, receive, send)

    try:
        await requests(with_state)
    finally:
        await to_application.put({"type": "lifespan.shutdown"})
        assert (await from_application.get())["type"] == "lifespan.shutdown.complete"
        await task


async def get(application: Any, *paths: str) -> list[str]:
    httpx = pytest.importorskip("httpx")
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        responses = await asyncio.gather(*map(client.get, paths))
    assert [response.status_code for response in responses] == [200] * len(paths)
    return [response.text for response in responses]


def test_starlette_starts_plugins_with_its_lifespan_and_calls_them_from_requests():
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    client = plugin_client(echo())

    async def answer(request: Request) -> PlainTextResponse:
        stub = request.state.echo.stub(EchoStub)
        reply = await stub.Unary(EchoRequest(text=request.path_params["text"]))
        return PlainTextResponse(reply.text)

    application = Starlette(routes=[Route("/{text}", answer)], lifespan=lifespan(echo=client))

    async def requests(application: Any) -> None:
        assert await get(application, "/a", "/b") == ["a", "b"]

    async def main() -> None:
        await live(application, requests)
        assert client.exited.is_set()
        await live(application, requests)

    asyncio.run(asyncio.wait_for(main(), 15))


def test_fastapi_with_a_client_in_a_lifespan_of_its_own():
    fastapi = pytest.importorskip("fastapi")
    from contextlib import asynccontextmanager

    client = plugin_client(echo())

    @asynccontextmanager
    async def life(_application: object):
        await client.start()
        yield
        await client.stop()

    application = fastapi.FastAPI(lifespan=life)
    stub = client.stub(EchoStub)

    @application.get("/{text}", response_class=fastapi.responses.PlainTextResponse)
    async def answer(text: str) -> str:
        return (await stub.Unary(EchoRequest(text=text))).text

    async def requests(application: Any) -> None:
        assert await get(application, "/a", "/b") == ["a", "b"]

    asyncio.run(asyncio.wait_for(live(application, requests), 15))
    assert client.exit is not None
    assert client.exit.status == 0


FIXTURES = """
from __future__ import annotations

import asyncio, sys
sys.path.insert(0, {root!r})

import pytest, pytest_asyncio
from pyvider_rpcplugin import plugin_client
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.asyncio(loop_scope="{scope}")
pids = set()

@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def by_block():
    async with plugin_client(echo()) as client:
        yield client

@pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
async def by_start():
    client = plugin_client(echo())
    await client.start()
    yield client
    await client.stop()
    assert client.exit.status == 0

@pytest.mark.parametrize("text", ["a", "b"])
async def test_calls(by_start, by_block, text):
    for client in (by_start, by_block):
        reply = await client.stub(EchoStub).Unary(EchoRequest(text=text))
        assert reply.text == text
        pids.add(client.pid)
    async with asyncio.timeout(5):
        await asyncio.gather(by_start.ping(), by_block.ping())

async def test_count():
    assert len(pids) == {processes}
"""

MISMATCH = """
import sys
sys.path.insert(0, {root!r})
import pytest, pytest_asyncio
from pyvider_rpcplugin import plugin_client, RPCPluginError
from tests.plugins import echo

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client():
    async with plugin_client(echo()) as client:
        yield client

@pytest.mark.asyncio
async def test_on_a_loop_of_its_own(client):
    with pytest.raises(RPCPluginError, match="another event loop"):
        await client.ping()
"""


def run_pytest(tmp_path: Path, program: str) -> None:
    pytest.importorskip("pytest_asyncio")
    file = tmp_path / "test_fixtures.py"
    file.write_text(program)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "pytest_asyncio.plugin",
                "-p",
                "no:cacheprovider",
            ),
            *("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"),
            *("-c", os.devnull, "--rootdir", str(tmp_path), str(file)),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout


@pytest.mark.parametrize(("scope", "processes"), [("function", 4), ("module", 2), ("session", 2)])
def test_fixtures_of_pytest_asyncio_keep_plugins(tmp_path, scope, processes):
    run_pytest(tmp_path, FIXTURES.format(root=str(ROOT), scope=scope, processes=processes))


def test_a_fixture_on_another_loop_than_its_test_is_an_error_and_no_hang(tmp_path):
    run_pytest(tmp_path, MISMATCH.format(root=str(ROOT)))
