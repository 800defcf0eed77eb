"""What a child process inherits in a pipe, and what nobody else does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.process import RunSpec, subprocess_runner
from pyvider_rpcplugin.process._handing import handing_runner
from pyvider_rpcplugin.server._inherited import take_inherited

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="written for POSIX"),
]

VARIABLE = "PLUGIN_IDENTITY_PIPE"

# It says what it gets, what is left of that, and whatever else it has inherited.
TAKES = """
import os
from pyvider_rpcplugin.server._inherited import take_inherited
number = int(os.environ.get("PLUGIN_IDENTITY_PIPE", "-1").partition(":")[0])
taken = take_inherited(os.environ), take_inherited(os.environ)
left = [fd for fd in os.listdir("/proc/self/fd") if int(fd) == number]
print(taken, "PLUGIN_IDENTITY_PIPE" in os.environ, left, flush=True)
"""


def open_pipes() -> set[str]:
    """The pipes that this process has an end of."""
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return {link for link in links if link.startswith("pipe:")}


def spec(code: str) -> RunSpec:
    return RunSpec(command=[sys.executable, "-c", code], env=dict(os.environ))


async def output_of(runner: Any) -> str:
    data = b""
    async with runner as child:
        with anyio.fail_after(10):
            try:
                while True:
                    data += await child.stdout.receive()
            except anyio.EndOfStream:
                await child.wait()
    return data.decode().strip()


async def test_a_child_gets_it_once_and_keeps_nothing_of_it() -> None:
    before = open_pipes()
    async with handing_runner(spec(TAKES), b"x" * 4096) as child:
        # Those of its output, of its errors, and the guardian's.
        assert len(open_pipes() - before) <= 3
        assert child.pid
    assert await output_of(handing_runner(spec(TAKES), b"secret")) == ("(b'secret', None) False []")


async def test_each_of_those_that_start_together_gets_its_own() -> None:
    said: dict[int, str] = {}

    async def start(number: int) -> None:
        said[number] = await output_of(handing_runner(spec(TAKES), b"%d" % number))

    async with anyio.create_task_group() as tg:
        for number in range(4):
            tg.start_soon(start, number)
    assert said == {number: f"(b'{number}', None) False []" for number in range(4)}


async def test_nothing_is_left_of_it_when_the_child_cannot_be_started() -> None:
    before = open_pipes()
    no_program = RunSpec(command=["/nowhere/at/all"], env={})
    with pytest.raises(TransportError):
        async with handing_runner(no_program, b"secret"):
            pass
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with handing_runner(spec("input()"), b"secret"):
            await anyio.sleep_forever()
    assert open_pipes() == before


async def test_a_wrapper_that_hands_descriptors_on_hands_this_one_on_too() -> None:
    given = spec(TAKES)
    wrapped = given.replace(command=["/bin/sh", "-c", '"$@"; exit $?', "sh", *given.command])
    assert await output_of(handing_runner(wrapped, b"secret")) == "(b'secret', None) False []"


@pytest.mark.parametrize("exchanged", ["False", "True"])
async def test_a_wrapper_that_closes_descriptors_leaves_nothing_to_take(exchanged: str) -> None:
    # What has the number then is not touched, even if it is a pipe.
    code = f"""
import os, subprocess, sys
number = int(os.environ["PLUGIN_IDENTITY_PIPE"].partition(":")[0])
os.close(number)
fds = ()
if {exchanged}:
    reading, writing = os.pipe()
    os.write(writing, b"other")
    if reading != number:
        os.dup2(reading, number)
    fds = [number]
code = {TAKES!r} + "print(os.read(number, 9) if {exchanged} else None)"
sys.exit(subprocess.call([sys.executable, "-c", code], pass_fds=fds))
"""
    taken, _, rest = (await output_of(handing_runner(spec(code), b"secret"))).partition("\n")
    assert taken.startswith("(None, None) False ")
    assert rest == ("b'other'" if exchanged == "True" else "None")


@pytest.mark.parametrize("text", ["", "x", "1", "1:2", "-1:2:3", "9" * 40 + ":1:1", "1:2:3:4"])
def test_a_variable_that_names_nothing_is_removed_and_that_is_all(text: str) -> None:
    environ = {VARIABLE: text, "OTHER": "x"}
    assert take_inherited(environ) is None
    assert environ == {"OTHER": "x"}


def test_a_pipe_that_is_empty_or_at_its_end_gives_nothing() -> None:
    for held_open in (True, False):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        found = os.fstat(reading)
        if not held_open:
            os.close(writing)
        assert take_inherited({VARIABLE: f"{reading}:{found.st_dev}:{found.st_ino}"}) is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reading)
        if held_open:
            os.close(writing)


async def test_without_a_pipe_the_process_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There are no descriptors left for one; subprocess makes its pipes by a function of its own.
    import pyvider_rpcplugin.process._handing as handing

    class NoPipes:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def pipe(self) -> Any:
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(handing, "os", NoPipes())
    assert (await output_of(handing_runner(spec(TAKES), b"secret"))).startswith("(None, None)")


async def test_a_process_that_gets_nothing_is_told_of_nothing() -> None:
    assert (await output_of(subprocess_runner(spec(TAKES)))).startswith("(None, None) False")
