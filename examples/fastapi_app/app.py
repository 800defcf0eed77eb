import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send
from teller_plugin import NothingToSay, Summary, Teller

from pyvider_rpcplugin import RestartPolicy, plugin_client
from pyvider_rpcplugin.aio import lifespan
from pyvider_rpcplugin.rpc import ConnectionLost

PLUGIN = Path(__file__).with_name("teller_plugin.py")

# Nothing runs yet: the application's lifespan starts it, and it is kept running from then on.
plugin = plugin_client([sys.executable, str(PLUGIN)], restart=RestartPolicy())
teller = plugin.proxy(Teller)

app = FastAPI(lifespan=lifespan(teller=plugin))


@app.post("/summary")
async def summary(text: Annotated[str, Body()]) -> Summary:
    return await teller.summary(text)


class PluginStream(StreamingResponse):
    """Sends what a plugin yields, as it comes. When the reader hangs up, the plugin stops."""

    def __init__(self, items: AsyncGenerator[str, None]) -> None:
        super().__init__(items, media_type="text/plain")
        self.items = items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.items):
            await super().__call__(scope, receive, send)


@app.get("/stories/{topic}")
async def tell(topic: str) -> PluginStream:
    return PluginStream(teller.tell(topic))


@app.get("/listeners")
async def listeners() -> int:
    return await teller.listeners()


@app.get("/health")
async def health() -> dict[str, bool]:
    await plugin.ping(timeout=5)
    return {"ok": True}


@app.exception_handler(NothingToSay)
async def nothing_to_say(_: Request, error: NothingToSay) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


@app.exception_handler(ConnectionLost)
async def connection_lost(_: Request, error: ConnectionLost) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=503)
