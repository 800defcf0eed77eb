"""Real processes: how they start, what they say, and how they end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin.exception import ConfigError, PluginExit, TransportError
from pyvider_rpcplugin.process import start_process

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="written for POSIX"),
]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def start(command, **options):
    options.setdefault("env", dict(os.environ))
    return start_process(command, **options)


async def read_line(process) -> bytes:
    """Read up to the line that says that the child has got somewhere."""
    line = b""
    while not line.endswith(b"\n"):
        data = await process.read_stdout()
        assert data, f"stdout ended after {line!r}"
        line += data
    return line


async def read_all(process) -> bytes:
    chunks: list[bytes] = []
    await process.drain_stdout(chunks.append)
    return b"".join(chunks)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with anyio.fail_after(5):
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def pids_of(line: bytes) -> list[int]:
    return [int(word) for word in line.split()]


# A handler may come too late for a sleep that is just about to begin; waiting for the signal
# itself does not.
AWAIT = (
    "import os, signal, sys; number = signal.{}; signal.pthread_sigmask(signal.SIG_BLOCK, [number]);"
    "print('up', flush=True); signal.sigwait([number]);"
)
IGNORE_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


# What a process leaves behind for its host to know


@pytest.mark.parametrize("status", [0, 3, 255])
async def test_exit_status_is_the_child_s(status):
    async with start(python(f"import sys; sys.exit({status})")) as process:
        with anyio.fail_after(5):
            assert await process.wait() == PluginExit(status, ())
        assert process.returncode == status
        assert process.exited.is_set()


async def test_death_by_a_signal_is_a_negative_status():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    async with start(python(code)) as process:
        with anyio.fail_after(5):
            ended = await process.wait()
    assert ended.status == -signal.SIGKILL
    assert ended.describe() == "was killed by SIGKILL"


async def test_a_running_process_has_no_status():
    async with start(python(SLEEP)) as process:
        assert process.returncode is None
        assert process.exit == PluginExit(None, ())
        assert not process.exited.is_set()
        assert repr(process) == f"<PluginProcess {process.pid} running>"


async def test_the_last_64_lines_of_stderr_are_kept_whole_at_once_when_it_has_exited():
    lines: list[str] = []
    code = "import sys\nfor n in range(200): print('line', n, file=sys.stderr)"
    async with start(python(code), on_stderr_line=lines.append) as process:
        with anyio.fail_after(5):
            ended = await process.wait()
        assert ended.stderr_tail == tuple(f"line {n}" for n in range(136, 200))
        assert lines == [f"line {n}" for n in range(200)]


async def test_stderr_without_a_newline_at_its_end_is_a_line_too():
    async with start(python("import sys; sys.stderr.write('a\\r\\nlast words')")) as process:
        with anyio.fail_after(5):
            assert (await process.wait()).stderr_tail == ("a", "last words")


async def test_stderr_lines_come_while_the_process_runs():
    arrived = anyio.Event()
    code = "import sys, time; print('hello', file=sys.stderr, flush=True); time.sleep(60)"
    async with start(python(code), on_stderr_line=lambda _: arrived.set()) as process:
        with anyio.fail_after(5):
            await arrived.wait()
        assert process.exit.stderr_tail == ("hello",)


async def test_a_callback_that_raises_is_logged_and_harms_nobody(caplog):
    def fail(line: str) -> None:
        raise ZeroDivisionError(line)

    code = "import sys; print('one', file=sys.stderr); print('two', file=sys.stderr); print('out')"
    async with start(python(code), on_stderr_line=fail) as process:
        with anyio.fail_after(5):
            await process.drain_stdout(fail)
            assert (await process.wait()).stderr_tail == ("one", "two")
    assert "callback_failed" in caplog.text


# Output


async def test_stdout_is_read_to_the_last_byte_after_the_process_has_exited():
    async with start(python("print('a' * 50_000, end='')")) as process:
        with anyio.fail_after(5):
            await process.wait()
            assert await read_all(process) == b"a" * 50_000
            assert await process.read_stdout() == b""


async def test_the_reader_of_the_first_line_hands_over_to_the_drain():
    code = "print('1|1|unix|x|grpc|', flush=True); print('more' * 30_000)"
    async with start(python(code)) as process:
        with anyio.fail_after(5):
            start_of_it = await process.read_stdout(10)
            rest = await read_all(process)
    assert len(start_of_it) <= 10
    assert start_of_it + rest == b"1|1|unix|x|grpc|\n" + b"more" * 30_000 + b"\n"


async def test_eight_mebibytes_on_both_streams_pass_while_the_host_waits():
    code = (
        "import os, threading\n"
        "def write(fd):\n"
        "    for _ in range(128): os.write(fd, b'x' * 65535 + b'\\n')\n"
        "threads = [threading.Thread(target=write, args=(fd,)) for fd in (1, 2)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    sizes = [0, 0]

    def count_line(line: str) -> None:
        sizes[1] += len(line) + 1

    def count(data: bytes) -> None:
        sizes[0] += len(data)

    async with start(python(code), on_stderr_line=count_line) as process:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(process.drain_stdout, count)
                assert (await process.wait()).status == 0
    assert sizes == [8 << 20, 8 << 20]


async def test_an_endless_line_on_stderr_comes_in_bounded_pieces():
    code = "import os; [os.write(2, b'y' * 65536) for _ in range(20)]"
    lines: list[str] = []
    async with start(python(code), on_stderr_line=lines.append) as process:
        with anyio.fail_after(5):
            await process.wait()
    assert "".join(lines) == "y" * (20 << 16)
    assert max(map(len, lines)) == 65536


async def test_two_readers_of_stdout_are_one_too_many():
    async with start(python(SLEEP)) as process:
        await read_line(process)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(process.read_stdout)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await process.read_stdout()
            task_group.cancel_scope.cancel()


async def test_a_cancelled_read_loses_nothing():
    async with start(python(SLEEP)) as process:
        with anyio.move_on_after(0):
            await process.read_stdout()
        with anyio.fail_after(5):
            assert await process.read_stdout() == b"up\n"


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_daemon_that_holds_the_pipe_does_not_hold_up_the_end(stream):
    # It leaves the group, so it survives the plugin: only the test can end it.
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); os.write(1, b'%d\\n' % os.getpid())\n"
        f"    os.close({3 - stream})\n"
        "    time.sleep(60)\n"
        "else:\n"
        "    time.sleep(60)\n"
    )
    daemon = None
    try:
        async with start(python(code)) as process:
            with anyio.fail_after(5):
                (daemon,) = pids_of(await read_line(process))
                os.kill(process.pid, signal.SIGKILL)
                assert (await process.wait()).status == -signal.SIGKILL
                assert await read_all(process) == b""
        assert alive(daemon)
    finally:
        if daemon is not None:
            os.kill(daemon, signal.SIGKILL)
            await gone(daemon)


# The end


async def test_leaving_the_block_ends_the_process():
    async with start(python(SLEEP)) as process:
        await read_line(process)
    assert process.returncode == -signal.SIGTERM
    assert not alive(process.pid)


async def test_a_process_that_ends_by_itself_on_sigterm_has_its_own_status():
    async with start(python(AWAIT.format("SIGTERM") + "sys.exit(7)"), term_grace=4) as process:
        await read_line(process)
    assert process.exit.status == 7


async def test_a_process_that_ignores_sigterm_is_killed(caplog):
    async with start(python(IGNORE_TERM + SLEEP), term_grace=0.05) as process:
        await read_line(process)
    assert process.returncode == -signal.SIGKILL
    assert "process.shutdown.slow" in caplog.text
    assert "SIGTERM" in caplog.text


async def test_what_a_wrapper_started_ends_with_it():
    command = ["sh", "-c", "sleep 60 & sleep 60 & echo $$ $! ; wait"]
    async with start(command) as process:
        with anyio.fail_after(5):
            shell, sleeper = pids_of(await read_line(process))
    assert shell == process.pid
    await gone(sleeper)


async def test_what_a_killed_wrapper_started_ends_at_once():
    async with start(["sh", "-c", "sleep 60 & echo $!; wait"]) as process:
        with anyio.fail_after(5):
            (sleeper,) = pids_of(await read_line(process))
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            await gone(sleeper)


async def test_a_process_that_writes_a_lot_before_it_ends_is_not_stuck_without_a_reader():
    code = AWAIT.format("SIGTERM") + "[os.write(1, b'z' * 65536) for _ in range(64)]; sys.exit(5)"
    async with start(python(code), term_grace=4) as process:
        await read_line(process)
    assert process.exit.status == 5


async def test_a_drain_that_was_cancelled_still_hears_the_last_words():
    code = AWAIT.format("SIGTERM") + "os.write(1, b'bye')"
    chunks: list[bytes] = []
    async with start(python(code), term_grace=4) as process:
        await read_line(process)
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(process.drain_stdout, chunks.append)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
    assert chunks == [b"bye"]


async def test_shutdown_asks_politely_first():
    asked = []
    async with start(python(AWAIT.format("SIGUSR1"))) as process:
        await read_line(process)

        async def polite() -> None:
            asked.append(process.pid)
            os.kill(process.pid, signal.SIGUSR1)

        with anyio.fail_after(5):
            assert (await process.shutdown(polite=polite, grace=60)).status == 0
            assert (await process.shutdown(polite=polite, grace=60)).status == 0
    assert asked == [process.pid]


async def test_shutdown_that_is_refused_goes_on_with_sigterm():
    async def polite() -> None:
        raise ConnectionError

    async with start(python(SLEEP)) as process:
        await read_line(process)
        with anyio.fail_after(5):
            assert (await process.shutdown(polite=polite, grace=60)).status == -signal.SIGTERM


async def test_shutdown_that_hangs_goes_on_when_its_time_is_over(caplog):
    async with start(python(IGNORE_TERM + SLEEP)) as process:
        await read_line(process)
        with anyio.fail_after(5):
            ended = await process.shutdown(polite=anyio.Event().wait, grace=0.05, term_grace=0.05)
    assert ended.status == -signal.SIGKILL
    slow = [record.getMessage() for record in caplog.records if "slow" in record.msg]
    assert ["step=polite" in slow[0], "step=SIGTERM" in slow[1]] == [True, True]


async def test_two_shutdowns_at_once_do_it_once():
    asked = []
    ends = []
    async with start(python(SLEEP)) as process:
        await read_line(process)

        async def polite() -> None:
            asked.append(1)
            os.kill(process.pid, signal.SIGKILL)

        async def stop() -> None:
            ends.append(await process.shutdown(polite=polite))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(stop)
                task_group.start_soon(stop)
    assert asked == [1]
    assert ends == [process.exit, process.exit]


async def test_shutdown_finishes_even_when_its_caller_is_cancelled():
    async with start(python(SLEEP)) as process:
        await read_line(process)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await process.shutdown()
        assert process.returncode == -signal.SIGTERM


async def test_a_process_that_has_ended_is_sent_no_signal(monkeypatch):
    sent = []
    async with start(python("pass")) as process:
        with anyio.fail_after(5):
            await process.wait()
        monkeypatch.setattr(os, "killpg", lambda *args: sent.append(args))
        await process.shutdown()
    assert sent == []


async def test_with_an_inherited_stdin_the_process_stays_in_our_group():
    code = "import os; print(os.getpgid(0), flush=True); import time; time.sleep(60)"
    async with start(python(code), stdin="inherit") as process:
        with anyio.fail_after(5):
            assert pids_of(await read_line(process)) == [os.getpgid(0)]
    assert process.returncode == -signal.SIGTERM


async def test_without_an_inherited_stdin_it_leads_a_group_and_reads_nothing():
    code = "import os, sys; print(os.getpgid(0), os.getpid(), len(sys.stdin.read()), flush=True)"
    async with start(python(code)) as process:
        with anyio.fail_after(5):
            group, pid, read = pids_of(await read_line(process))
    assert (group, pid, read) == (process.pid, process.pid, 0)


# Exceptions and cancellation


async def test_an_exception_of_the_body_leaves_the_block_bare_and_the_process_ends():
    with pytest.raises(ZeroDivisionError) as caught:
        async with start(python(SLEEP)) as process:
            raise ZeroDivisionError
    assert caught.value.__context__ is None
    assert not alive(process.pid)


async def test_an_exception_group_of_the_body_is_left_as_it_is():
    group = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with start(python(SLEEP)):
            raise group
    assert caught.value is group


async def test_cancelled_before_the_start_it_leaves_nothing():
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with start(python(SLEEP)) as process:
            await process.wait()
    assert scope.cancelled_caught
    assert not alive(process.pid)


async def test_cancelled_while_it_runs_it_is_ended():
    async with anyio.create_task_group() as task_group:

        async def run(*, task_status) -> None:
            async with start(python(SLEEP)) as process:
                task_status.started(process)
                await process.wait()

        process = await task_group.start(run)
        task_group.cancel_scope.cancel()
    assert process.returncode == -signal.SIGTERM
    assert not alive(process.pid)


async def test_cancelled_while_it_is_being_ended_it_is_ended_all_the_same():
    entered = anyio.Event()
    async with anyio.create_task_group() as task_group:

        async def polite() -> None:
            entered.set()
            await anyio.Event().wait()

        async def run(*, task_status) -> None:
            async with start(python(IGNORE_TERM + SLEEP), term_grace=0.05) as process:
                await read_line(process)
                task_status.started(process)
                await process.shutdown(polite=polite, grace=0.1, term_grace=0.05)

        process = await task_group.start(run)
        with anyio.fail_after(5):
            await entered.wait()
        task_group.cancel_scope.cancel()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_turn_of_the_loop_it_leaves_nothing(turns):
    pids: list[int] = []

    async def run() -> None:
        async with start(["sh", "-c", "echo up; exit 3"]) as process:
            pids.append(process.pid)
            await process.drain_stdout()
            await process.wait()
            await process.shutdown()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(run)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        task_group.cancel_scope.cancel()
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_s_own_cancel_which_knows_no_shield_still_leaves_nothing():
    import asyncio

    up = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with start(python(IGNORE_TERM + SLEEP), term_grace=60) as process:
            await read_line(process)
            up.set_result(process)

    task = asyncio.get_running_loop().create_task(run())
    process = await up
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with anyio.fail_after(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not alive(process.pid)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_an_interrupt_that_trio_raises_in_one_of_our_tasks_ends_the_process():
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    code = "import sys, time; print('x', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        async with start(python(code), on_stderr_line=interrupt) as process:
            with anyio.fail_after(5):
                await process.wait()
    assert process.returncode == -signal.SIGTERM


HOST = """
import os, signal, sys, anyio
from pyvider_rpcplugin.process import start_process

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

async def main():
    async with start_process({command!r}, env=os.environ) as process:
        await process.read_stdout()
        print(process.pid, flush=True)
        await process.drain_stdout()

try:
    anyio.run(main, backend={backend!r})
except KeyboardInterrupt:
    sys.exit(42)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_in_the_host_ends_the_process_without_a_word(backend):
    # The child must not get the signal itself: it leads a group of its own.
    program = HOST.format(command=python(SLEEP), backend=backend)
    host = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert host.stdout is not None
        child = int(host.stdout.readline())
        host.send_signal(signal.SIGINT)
        _, errors = host.communicate(timeout=50)
    finally:
        host.kill()
        host.wait()
    assert (host.returncode, errors) == (42, b"")
    assert not alive(child)


# Many at once, and unusual systems


async def test_twenty_processes_at_once_need_no_thread():
    # One more may come: trio waits in a thread where anyio's pytest plugin has it be a guest.
    threads = threading.active_count() + 1
    seen = []

    async def run() -> None:
        async with start(python("import sys; print('up', flush=True); sys.exit(4)")) as process:
            await read_line(process)
            seen.append(threading.active_count())
            assert (await process.wait()).status == 4

    with anyio.fail_after(20):
        async with anyio.create_task_group() as task_group:
            for _ in range(20):
                task_group.start_soon(run)
    assert max(seen) <= threads
    assert len(seen) == 20


async def test_without_pidfds_a_thread_waits(monkeypatch):
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    async with start(python("import sys; sys.exit(3)")) as process:
        with anyio.fail_after(5):
            assert (await process.wait()).status == 3
    async with start(python(SLEEP)) as process:
        await read_line(process)
    assert process.returncode == -signal.SIGTERM


async def test_a_status_that_somebody_else_took_is_unknown_and_no_error():
    async with start(python(SLEEP)) as process:
        await read_line(process)
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)  # noqa: ASYNC222 - the loop must not get its turn before
        with anyio.fail_after(5):
            assert await process.wait() == PluginExit(None, ())


# What cannot be started


async def refused(command, **options):
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TransportError) as caught:
        async with start(command, **options):
            pytest.fail("it started")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 2
    assert caught.value.phase == "launch"
    return caught.value


async def test_no_such_file():
    assert "no such file" in (await refused(["./no-such-plugin"])).message


async def test_a_command_line_in_one_word():
    error = await refused(["./no-such-plugin --serve"])
    assert "word" in error.hint


async def test_no_such_program_on_the_path():
    assert "PATH" in (await refused(["no-such-plugin"])).message


async def test_not_executable(tmp_path):
    script = tmp_path / "plugin.py"
    script.write_text("print()")
    error = await refused([str(script)])
    assert "not executable" in error.message
    assert '["python"' in error.hint
    data = tmp_path / "plugin"
    data.write_text("")
    assert f"chmod +x {data}" in (await refused([str(data)])).hint


async def test_a_folder(tmp_path):
    assert "folder" in (await refused([str(tmp_path)])).message


async def test_a_script_without_a_first_line(tmp_path):
    script = tmp_path / "plugin"
    script.write_text("print()")
    script.chmod(0o755)
    assert "#!/usr/bin/env" in (await refused([str(script)])).hint


async def test_a_script_whose_interpreter_is_missing(tmp_path):
    script = tmp_path / "plugin"
    script.write_text("#!/no/such/python\nprint()")
    script.chmod(0o755)
    assert "/no/such/python" in (await refused([str(script)])).message


async def test_a_missing_working_folder(tmp_path):
    error = await refused(python("pass"), cwd=tmp_path / "nowhere")
    assert "working folder does not exist" in error.message


async def test_a_file_as_working_folder(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert "not a folder" in (await refused(python("pass"), cwd=file)).message


async def test_too_long_an_environment():
    env = {f"NAME{n}": "x" * 100_000 for n in range(100)}
    assert "too long" in (await refused(python("pass"), env=env)).message


@pytest.mark.parametrize(
    "command",
    ["python plugin.py", b"plugin", Path("plugin"), [], [""], ["a\0b"], [b"plugin"], [3], 3],
    ids=repr,
)
async def test_what_is_no_list_of_words_is_no_command(command):
    with pytest.raises(ConfigError) as caught:
        async with start(command):
            pytest.fail("it started")
    assert caught.value.hint


async def test_a_path_is_a_word_of_a_command():
    async with start([Path(sys.executable), "-c", "pass"]) as process:
        with anyio.fail_after(5):
            assert (await process.wait()).status == 0


@pytest.mark.parametrize("env", [{"A=B": "x"}, {"A": "x\0"}])
async def test_a_malformed_environment_is_a_mistake_of_the_caller(env):
    with pytest.raises(ConfigError, match="cannot start"):
        async with start(python("pass"), env=env):
            pytest.fail("it started")


async def test_only_the_given_environment_reaches_the_process(tmp_path):
    code = "import os; print(sorted(os.environ), os.getcwd())"
    async with start(python(code), env={"ONLY": "1", "LC_ALL": "C"}, cwd=tmp_path) as process:
        with anyio.fail_after(5):
            line = await read_line(process)
    assert line.decode().strip() == f"['LC_ALL', 'ONLY'] {tmp_path}"
