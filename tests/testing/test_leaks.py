"""The assertion that nothing is left behind sees what is, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import anyio
import pytest

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.client._folder import socket_folder
from pyvider_rpcplugin.testing import assert_nothing_leaked, scripted_plugin

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_block_without_leaks_passes():
    with assert_nothing_leaked():
        subprocess.run([sys.executable, "-c", ""], check=True)
        with socket_folder(""), socket.socket(), contextlib.ExitStack() as stack:
            done = threading.Event()
            thread = threading.Thread(target=done.wait)
            thread.start()
            stack.callback(thread.join)
            stack.callback(done.set)


@pytest.mark.process
def test_a_process_is_named_and_killed():
    with pytest.raises(AssertionError, match=r"left behind: process \d+ .*time\.sleep"):
        with assert_nothing_leaked(within=0.05):
            process = subprocess.Popen(SLEEPER)
    process.returncode = -signal.SIGKILL  # It was reaped for it.
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.process
def test_what_a_process_has_started_is_named_too():
    script = (
        f"import subprocess; p = subprocess.Popen({SLEEPER!r}); print(p.pid, flush=True); p.wait()"
    )
    with pytest.raises(AssertionError) as caught:
        with assert_nothing_leaked(within=0.05):
            process = subprocess.Popen(
                [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            with process.stdout as out:
                pid = int(out.readline())
    process.returncode = -signal.SIGKILL
    assert f"process {pid} " in str(caught.value)
    assert f"process {process.pid} " in str(caught.value)


def test_a_descriptor_is_named():
    with pytest.raises(AssertionError, match=r"descriptor .*socket:"):
        with assert_nothing_leaked():
            left = socket.socket()
    left.close()


def test_a_thread_is_named():
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="the one")
    with pytest.raises(AssertionError, match="thread the one"):
        with assert_nothing_leaked():
            thread.start()
    done.set()
    thread.join()


def test_a_folder_for_sockets_is_named_whether_it_is_held_or_not():
    with contextlib.ExitStack() as stack:
        with pytest.raises(AssertionError, match=r"folder .*rpcplugin-host-"):
            with assert_nothing_leaked():
                stack.enter_context(socket_folder(""))


def test_an_exception_of_the_blocks_own_has_precedence():
    with socket.socket() as left, pytest.raises(KeyError):
        with assert_nothing_leaked():
            other = left.dup()
            with contextlib.closing(other):
                raise KeyError


@pytest.mark.process
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_plugin_leaves_nothing(backend: str):
    async def use() -> None:
        async with plugin_client(scripted_plugin()) as client:
            await client.ping()

    with assert_nothing_leaked():
        anyio.run(use, backend=backend)
