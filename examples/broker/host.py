from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from survey_grpc import ProgressBase, SurveyStub, TalkStub
from survey_pb2 import AskRequest, InterviewRequest, ReportReply, ReportRequest, RunRequest

from pyvider_rpcplugin import plugin_client

if TYPE_CHECKING:
    from grpclib.server import Stream

PLUGIN = Path(__file__).with_name("survey_plugin.py")


class Progress(ProgressBase):
    async def Report(self, stream: Stream[ReportRequest, ReportReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        print(f"the plugin looks at {request.place}")
        await stream.send_message(ReportReply(go_on=request.place != "the attic"))


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)]) as client:
        survey = client.stub(SurveyStub)

        # The plugin calls the host, in the middle of the host's call.
        async with client.broker.serve(Progress()) as number:
            places = ["the hall", "the attic", "the cellar"]
            reply = await survey.Run(RunRequest(places=places, report_to=number))
        print(f"it saw {reply.seen} of {len(places)}")

        # The host calls what the plugin serves for this one conversation.
        async with survey.Interview.open() as stream:
            await stream.send_message(InterviewRequest(name="Grace"), end=True)
            opened = await stream.recv_message()
            assert opened is not None
            async with client.broker.dial(opened.number) as channel:
                answer = await TalkStub(channel).Ask(AskRequest(question="compilers"))
            print(answer.answer)
            await stream.cancel()


if __name__ == "__main__":
    for backend in ("asyncio", "trio"):
        print(f"on {backend}:")
        anyio.run(main, backend=backend)
