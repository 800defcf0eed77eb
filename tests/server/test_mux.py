"""Several plugins in one program."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import pytest

from pyvider_rpcplugin import (
    HandshakeError,
    ProtocolError,
    plugin_client,
    plugin_mux,
    plugin_server,
)
from tests.plugins import FOLDER
from tests.plugins.misc_plugin import Misc, ask
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .test_debug import Debugged

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])
PROGRAM = [sys.executable, str(FOLDER / "mux_plugin.py")]


@pytest.mark.process
@LOOPS
async def test_the_argument_chooses_the_plugin(loop: str) -> None:
    env = {"LOOP": loop}
    with anyio.fail_after(10):
        async with plugin_client([*PROGRAM, "misc"], env=env) as client:
            assert await ask(client.grpc_channel, "") == "?"
            # What makes the others has not been called.
            assert client.exit is None
        assert client.exit is not None
        assert "made" not in client.exit.stderr_tail
        async with plugin_client([*PROGRAM, "echo"], env=env) as client:
            assert (await client.stub(EchoStub).Unary(EchoRequest(text="x"))).text == "x"


@pytest.mark.process
@LOOPS
@pytest.mark.parametrize(
    "arguments", [[], ["misc", "echo"], ["other"], ["--other"], ["misc", "-v"]]
)
def test_any_other_argument_is_a_note_and_status_1(loop: str, arguments: list[str]) -> None:
    ran = subprocess.run(
        [*PROGRAM, *arguments],
        env=os.environ | {"LOOP": loop},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 2
    assert "broken, echo, misc" in ran.stderr


@pytest.mark.process
async def test_a_host_that_names_no_plugin_is_told_which_there_are() -> None:
    with anyio.fail_after(5):
        with pytest.raises(HandshakeError, match="there are: broken, echo, misc") as caught:
            await plugin_client([*PROGRAM, "other"], env={"LOOP": "trio"}).start()
    assert caught.value.exit_status == 1


@pytest.mark.process
def test_a_plugin_that_cannot_be_made_says_why() -> None:
    ran = subprocess.run(
        [*PROGRAM, "broken"],
        env=os.environ | {"LOOP": "asyncio"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (1, "this one is not ready\n")


@pytest.mark.process
@LOOPS
@pytest.mark.parametrize("arguments", [["misc", "--debug"], ["--debug", "misc"]])
def test_one_of_several_can_be_debugged(loop: str, arguments: list[str]) -> None:
    with Debugged([*PROGRAM, *arguments], LOOP=loop) as plugin:
        assert plugin.record().test
        assert plugin.end()[0] == 0


def test_a_server_is_made_once_and_when_it_is_asked_for() -> None:
    mux = plugin_mux({"made": lambda: plugin_server(handler=Misc())})
    assert mux.server("made") is mux.server("made")
    with pytest.raises(ProtocolError, match="no plugin 'other'"):
        mux.server("other")
    assert repr(mux) == "<PluginMux made>"


@pytest.mark.parametrize("plugins", [{}, {"": Misc}, {"-v": Misc}])
def test_what_cannot_be_chosen_is_refused_at_once(plugins) -> None:
    with pytest.raises(ProtocolError):
        plugin_mux(plugins)
