"""The web application with a plugin, as its server sees it, on both loops."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from .readmes import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, MutableMapping

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
starlette_requests = pytest.importorskip("starlette.requests")

pytestmark = pytest.mark.process


@contextmanager
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the application anew."""
    names = ("app", "teller_plugin")
    monkeypatch.syspath_prepend(EXAMPLES / "fastapi_app")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        yield importlib.import_module("app")
    finally:
        for name in names:
            monkeypatch.delitem(sys.modules, name)


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Import the application, and run its lifespan."""
    with imported(monkeypatch) as module, anyio.fail_after(20):
        async with module.app.router.lifespan_context(module.app):
            yield module


async def test_requests_call_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch) as module:
        transport = httpx.ASGITransport(app=module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            summary = await client.post("/summary", json="to be or not to be")
            assert (summary.status_code, summary.json()) == (200, {"words": 6, "longest": "not"})
            # What the plugin raises is the application's answer.
            refused = await client.post("/summary", json=" ")
            assert refused.status_code == 422
            assert refused.json() == {"detail": "there are no words in it"}
            assert (await client.get("/health")).json() == {"ok": True}
            described = (await client.get("/openapi.json")).json()
            assert set(described["components"]["schemas"]) >= {"Summary"}


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_a_story_ends_in_the_plugin_when_its_reader_hangs_up(
    monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    """By the older of ASGI's versions a server says so, by the newer one sending fails."""
    async with running(monkeypatch) as module:
        heard: list[bytes] = []
        hung_up = anyio.Event()

        async def receive() -> dict[str, object]:
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            if hung_up.is_set() and spec == "2.4":
                raise OSError
            if message["type"] == "http.response.body":
                heard.append(message["body"])
                assert await module.teller.listeners() == 1
            if len(heard) == 3:
                hung_up.set()
                await anyio.lowlevel.checkpoint()

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": spec}, "method": "GET",
            "path": "/stories/cat", "query_string": b"", "headers": [], "http_version": "1.1",
        }  # fmt: skip
        with suppress(starlette_requests.ClientDisconnect):
            await module.app(scope, receive, send)
        assert heard[:3] == [b"Once ", b"upon ", b"a "]
        while await module.teller.listeners():
            await anyio.lowlevel.checkpoint()


async def test_the_plugin_is_started_again_when_it_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as module:
        transport = httpx.ASGITransport(app=module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            before = module.plugin.pid
            events = module.plugin.events()
            os.kill(before, signal.SIGKILL)
            async for event in events:
                if event.kind == "started":
                    break
            assert (await client.post("/summary", json="still here")).status_code == 200
            assert module.plugin.pid != before
