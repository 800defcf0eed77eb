"""Ctrl-C at any moment, and programs that forget to stop: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

PROGRAM = str(Path(__file__).with_name("host_program.py"))


def run(mode: str, backend: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", PROGRAM, mode, backend],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "mode",
    ["start", "call", "follow", "stream", "stop", "stop_twice", "storm", "own_handler", "dropped"],
)
def test_an_interrupt_leaves_nothing_behind_and_harms_no_others(mode, backend):
    _, said = run(mode, backend)
    assert said == ""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_plugin_that_nobody_stopped_ends_with_the_program_which_says_so(backend):
    printed, said = run("forgotten", backend)
    assert "still running when the program ended" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(printed), 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_is_told_that_the_client_is_not_its_own():
    _, said = run("forked", "asyncio")
    assert said == ""
