from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from survey_grpc import ProgressStub, SurveyBase, TalkBase
from survey_pb2 import (
    AskReply,
    AskRequest,
    InterviewReply,
    InterviewRequest,
    ReportRequest,
    RunReply,
    RunRequest,
)

from pyvider_rpcplugin import context, plugin_server

if TYPE_CHECKING:
    from grpclib.server import Stream


class Survey(SurveyBase):
    async def Run(self, stream: Stream[RunRequest, RunReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        seen = 0
        async with context().broker.dial(request.report_to) as channel:
            progress = ProgressStub(channel)
            for place in request.places:
                seen += 1
                answer = await progress.Report(ReportRequest(place=place))
                if not answer.go_on:
                    break
        await stream.send_message(RunReply(seen=seen))

    async def Interview(self, stream: Stream[InterviewRequest, InterviewReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        async with context().broker.serve(Talk(request.name)) as number:
            await stream.send_message(InterviewReply(number=number))
            await anyio.Event().wait()  # The host ends it: it leaves the stream.


class Talk(TalkBase):
    def __init__(self, name: str) -> None:
        self.name = name

    async def Ask(self, stream: Stream[AskRequest, AskReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(AskReply(answer=f"{self.name} thinks about {request.question!r}"))


if __name__ == "__main__":
    plugin_server(handler=Survey()).run()
