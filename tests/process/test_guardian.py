"""What is left of plugins when their host is killed: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import anyio
import psutil
import pytest

from pyvider_rpcplugin.process import start_process
from pyvider_rpcplugin.process._guardian import Guardian, guardian

pytestmark = pytest.mark.process

ROOT = str(Path(__file__).parents[2])

# Neither notices anything: it does not even know this library. With a child of its own.
DEAF = "trap '' TERM HUP INT PIPE; sleep 1000 & echo $$ $!; wait; wait"


def host(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A host in a process of its own, which prints the numbers of what it started."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )


STARTS = """
    import os, sys, time
    import anyio
    from pyvider_rpcplugin.process import start_process
    async def main():
        async with start_process(["/bin/sh", "-c", sys.argv[2]], env=dict(os.environ)) as process:
            line = await process.read_stdout()
            print(line.decode(), end="", flush=True)
            await anyio.sleep_forever()
    anyio.run(main, backend=sys.argv[1])
"""


async def test_a_guardian_that_has_ended_is_waited_for_once() -> None:
    mine = Guardian()
    mine.add(os.getpid(), group=False)
    mine.drop(os.getpid(), group=False)
    assert mine._ending
    with anyio.fail_after(5):
        await mine.settled()
    # Its number may be another process's from now on.
    assert not mine._ending
    mine.add(os.getpid(), group=False)
    mine.drop(os.getpid(), group=False)
    mine.settle()
    assert not mine._ending


def gone(pids: list[int]) -> bool:
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=50)
    return not alive


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_plugin_that_notices_nothing_ends_with_its_killed_host_and_so_do_its_children(
    loop: str,
) -> None:
    with host(STARTS, loop, DEAF) as started:
        assert started.stdout is not None
        pids = [int(word) for word in started.stdout.readline().split()]
        assert len(pids) == 2
        started.kill()
    assert gone(pids)


def test_a_plugin_whose_thread_has_ended_lives_on() -> None:
    code = """
        import os, subprocess, sys, threading
        import anyio
        from pyvider_rpcplugin.process import start_process
        async def main():
            async with start_process(["/bin/sh", "-c", sys.argv[1]], env=dict(os.environ)) as process:
                print((await process.read_stdout()).decode(), end="", flush=True)
                os._exit(0) if sys.argv[2] == "exit" else await anyio.sleep_forever()
        thread = threading.Thread(target=anyio.run, args=(main,), daemon=True)
        thread.start()
        sys.stdin.read()
    """
    with host(code, DEAF, "stay") as started:
        assert started.stdout is not None
        pids = [int(word) for word in started.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        started.kill()
    assert gone(pids)


async def test_the_guardian_is_there_only_while_it_has_something_to_guard() -> None:
    assert guardian._process is None
    with anyio.fail_after(10):
        async with start_process(["/bin/sleep", "1000"], env={}):
            first = guardian._process
            assert first is not None
            async with start_process(["/bin/sleep", "1000"], env={}):
                assert guardian._process is first
            assert first.poll() is None
    assert first.returncode == 0
    assert guardian._process is None


async def test_others_go_on_while_a_guardian_takes_its_time_to_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mine = Guardian()
    mine.add(1 << 30, group=True)  # no such number is given out
    slow = mine._process
    assert slow is not None
    slow.send_signal(signal.SIGSTOP)
    steps = 0
    with anyio.fail_after(5):
        mine.drop(1 << 30, group=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mine.settled)
            while steps < 100:
                await anyio.lowlevel.checkpoint()
                steps += 1
            assert slow.poll() is None
            slow.send_signal(signal.SIGCONT)
    assert slow.returncode == 0
    assert not caplog.records


def test_it_ends_what_it_was_told_of_and_not_what_it_was_told_to_forget() -> None:
    mine = Guardian()
    kept, ended = (subprocess.Popen(["/bin/sleep", "1000"], process_group=0) for _ in range(2))
    mine.add(kept.pid, group=True)
    mine.add(ended.pid, group=True)
    mine.drop(kept.pid, group=True)
    process = mine._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # as the host's end does
    assert ended.wait(60) == -signal.SIGTERM
    assert process.wait(60) == 0
    assert kept.poll() is None
    kept.kill()
    kept.wait(60)
    mine._release()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such /proc")
def test_a_host_that_is_killed_before_it_knows_the_plugins_number_leaves_nothing() -> None:
    code = STARTS.replace(
        "    async def main():",
        """    import signal
    from pyvider_rpcplugin.process._guardian import guardian
    guardian.add = lambda pid, group: (print(pid, flush=True), os.kill(os.getpid(), signal.SIGKILL))
    async def main():""",
    )
    with host(code, "asyncio", DEAF) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert started.wait(60) == -signal.SIGKILL
    assert gone([pid])


def test_many_threads_may_start_and_end_plugins() -> None:
    mine = Guardian()

    def work(pid: int) -> None:
        for _ in range(20):
            mine.add(pid, group=True)
            mine.drop(pid, group=True)

    # None of them is a process: no such number is given out.
    threads = [threading.Thread(target=work, args=((1 << 30) + n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mine._process is None
    mine.settle()


def test_a_forked_child_of_the_host_does_not_keep_the_plugins_alive() -> None:
    code = STARTS.replace(
        'end="", flush=True)',
        'end=" ")\n            print(os.fork() or time.sleep(1000), flush=True)',
    )
    with host(code, "asyncio", DEAF.replace("echo", "echo -n")) as started:
        assert started.stdout is not None
        *pids, forked = [int(word) for word in started.stdout.readline().split()]
        started.kill()
        assert gone(pids)
        os.kill(forked, signal.SIGKILL)


def test_without_a_shell_plugins_start_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pyvider_rpcplugin.process._guardian._SHELL", "/no/such/shell")
    mine = Guardian()
    for _ in range(2):
        mine.add(1 << 30, group=True)
        mine.drop(1 << 30, group=True)
    assert [record.message.split()[0] for record in caplog.records] == ["process.guardian.missing"]


def test_it_is_there_before_what_it_is_to_guard() -> None:
    mine = Guardian()
    pipes = [os.pipe(), os.pipe()]
    with mine.expecting(pipes[0][1]):
        first = mine._process
        assert first is not None
        with mine.expecting(pipes[1][1]):
            mine.add(1 << 30, group=True)
            mine.drop(1 << 30, group=True)
        assert mine._process is first
    assert mine._process is None
    mine.settle()
    assert first.returncode == 0
    for end in (*pipes[0], *pipes[1]):
        os.close(end)
