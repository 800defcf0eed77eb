import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
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


async def story(topic: str) -> AsyncIterator[AsyncGenerator[str, None]]:
    # Ends the call when the response has: also when its reader hangs up.
    async with aclosing(teller.tell(topic)) as words:
        yield words


@app.get("/stories/{topic}")
async def tell(words: Annotated[AsyncGenerator[str, None], Depends(story)]) -> StreamingResponse:
    return StreamingResponse(words, media_type="text/plain")


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
