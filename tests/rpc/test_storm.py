"""Many calls at once, each of which may end in any way at any time."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import RPCOptions
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, Linked, linked, request

_ALLOWED = {Status.DEADLINE_EXCEEDED, Status.ABORTED, Status.CANCELLED}


class Storm:
    """Handlers and callers that do by chance what they may do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.completed = 0
        self.statuses: set[Status] = set()

    async def handle(self, stream: Any) -> None:
        index = 0
        async for message in stream:
            if self.chance.random() < 0.05:
                raise GRPCError(Status.ABORTED, "by chance")
            if self.chance.random() < 0.05:
                return
            if self.chance.random() < 0.1:
                await anyio.sleep(self.chance.random() / 500)
            await stream.send_message(EchoReply(data=message.data, index=index))
            index += 1

    async def call(self, ours: Linked) -> None:
        chance = self.chance
        timeout = chance.choice([None, None, 0.002, 10])
        size = chance.choice([0, 10, 1000, 70_000, 300_000])
        leave = chance.random()
        with anyio.CancelScope() as scope:
            if chance.random() < 0.2:
                scope.deadline = anyio.current_time() + chance.random() / 100
            try:
                async with request(ours.channel, "Bidi", timeout=timeout) as stream:
                    for index in range(chance.randrange(1, 6)):
                        await stream.send_message(EchoRequest(data=bytes(size)))
                        reply = await stream.recv_message()
                        if reply is None:
                            break
                        assert (len(reply.data), reply.index) == (size, index)
                        if leave < 0.05:
                            return
                        if leave < 0.1:
                            raise LookupError
                    if stream.trailing_metadata is None:
                        await stream.cancel() if leave > 0.9 else await stream.end()
                    self.completed += 1
            except LookupError:
                pass
            except GRPCError as error:
                self.statuses.add(error.status)


@pytest.mark.parametrize("link", ["memory", "unix"])
@pytest.mark.parametrize("seed", range(4))
async def test_no_call_of_a_storm_is_harmed_by_another(link: str, seed: int) -> None:
    storm = Storm(seed)
    options = RPCOptions(max_concurrent_streams=20)
    async with linked(Echo(Bidi=storm.handle), link=link, server_options=options) as ours:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(storm.call, ours)
        assert storm.completed > 10
        assert storm.statuses <= _ALLOWED
        assert len(ours.channel._connections) == 1
        await ours.check_nothing_is_left()
