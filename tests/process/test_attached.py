"""Processes that others have started, watched and ended by their numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from pyvider_rpcplugin import ReattachConfig, TransportError
from pyvider_rpcplugin.process import PluginProcess, attach_process, supervised
from pyvider_rpcplugin.process._attached import started

pytestmark = pytest.mark.process

# A process that ignores SIGTERM if it is told to, and says when it is there.
CODE = """
import signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("here", flush=True)
time.sleep(60)
"""


@contextmanager
def running(*arguments: str, group: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", CODE, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0 if group else None)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def record_of(process: subprocess.Popen[bytes], **more: object) -> ReattachConfig:
    record = ReattachConfig(network="unix", address="/nowhere", pid=process.pid)
    return ReattachConfig.from_dict(record.to_dict() | more)


def wait_until_zombie(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture(params=[True, False], ids=["pidfd", "polling"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the descriptor that tells of an end, and without one."""
    if not request.param:
        monkeypatch.setattr("pyvider_rpcplugin.process._attached.open_pidfd", lambda pid: None)
        monkeypatch.setattr("pyvider_rpcplugin.process._attached._INTERVAL", 0.01)


@pytest.mark.usefixtures("_each_way")
async def test_the_end_of_anothers_process_is_noticed() -> None:
    with anyio.fail_after(5), running() as process:
        async with attach_process(record_of(process, Started=started(process.pid))) as attached:
            assert (attached.id, attached.pid) == (str(process.pid), process.pid)
            with anyio.move_on_after(0.01) as scope:
                await attached.wait()
            assert scope.cancelled_caught
            process.kill()
            # It is a zombie by then: nobody has waited for it.
            assert await attached.wait() is None
            # And so there is nobody to signal.
            await attached.terminate()
            await attached.kill()


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize(("argument", "status"), [("", -15), ("stubborn", -9)])
@pytest.mark.parametrize("group", [False, True])
async def test_the_ladder_ends_anothers_process(argument: str, status: int, group: bool) -> None:
    with anyio.fail_after(5), running(argument, group=group) as process:
        record = record_of(process, Group=group)
        async with supervised(attach_process(record), term_grace=0.1) as supervisor:
            assert await supervisor.read_stdout() == b""
            ended = await supervisor.shutdown(term_grace=0.1)
            assert ended.status is None
        assert process.wait() == status


@pytest.mark.usefixtures("_each_way")
async def test_what_is_left_runs_on() -> None:
    with anyio.fail_after(5), running() as process:
        async with supervised(attach_process(record_of(process))) as supervisor:
            assert isinstance(supervisor, PluginProcess)
            supervisor.leave()
        assert process.poll() is None


@pytest.mark.usefixtures("_each_way")
async def test_a_process_that_has_ended_is_not_attached_to() -> None:
    with running() as process:
        pass
    record = record_of(process)
    with pytest.raises(TransportError, match=f"no process {process.pid}"):
        async with attach_process(record):
            pass


@pytest.mark.usefixtures("_each_way")
async def test_a_zombie_is_not_attached_to() -> None:
    with running() as process:
        process.kill()
        wait_until_zombie(process.pid)
        with pytest.raises(TransportError, match=f"no process {process.pid}"):
            async with attach_process(record_of(process)):
                pass


@pytest.mark.usefixtures("_each_way")
async def test_another_process_with_the_same_number_is_not_attached_to() -> None:
    with running() as process:
        record = record_of(process, Started=started(process.pid) + 1)
        with pytest.raises(TransportError, match="another process"):
            async with attach_process(record):
                pass
        assert process.poll() is None


async def test_a_group_that_the_process_does_not_lead_is_not_signalled() -> None:
    with anyio.fail_after(5), running() as process:
        async with attach_process(record_of(process, Group=True)) as attached:
            await attached.terminate()
        assert process.wait() == -signal.SIGTERM


async def test_a_plugin_without_a_number_can_only_be_asked() -> None:
    record = ReattachConfig(network="unix", address="/nowhere")
    with anyio.fail_after(5):
        async with supervised(attach_process(record), term_grace=0.1) as process:
            assert process.pid is None
            assert process.id == "of unknown number"
            with anyio.move_on_after(0.01) as scope:
                await process.wait()
            assert scope.cancelled_caught
        assert process.exited.is_set()
