"""What all tests share: both event loops, and the check that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# These change what a Python child does (they hide a missing flush and distort start-up times), and
# variables of the plugin protocol would make this process look like a plugin.
for name in list(os.environ):
    if name in {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"} or name.startswith("PLUGIN_"):
        del os.environ[name]

# A shell without job control has what it runs in the background ignore Ctrl-C, children inherit
# that, and the tests of Ctrl-C would wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "tests",
    database=None,
    deadline=None,
    derandomize=True,
    # The first: both loops are a fixture, and no state of it reaches the examples.
    # The second: it would fail a test for what else the machine is doing.
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("tests")

BACKENDS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run an async test on asyncio (debug mode) and on trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend


@pytest.fixture(scope="session", autouse=True)
def _base_folder_first(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let pytest choose the place of ``tmp_path`` before TMPDIR changes for the first time."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a descriptor, or a temporary file.

    Each test has a temporary folder of its own, with a short path: a Unix socket's path may have
    107 bytes at most.
    """
    folder = Path(tempfile.mkdtemp(prefix="pv-", dir="/tmp" if os.name == "posix" else None))
    pids = _pids()
    threads = set(threading.enumerate())
    descriptors = _descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        try:
            yield
        finally:
            left = _processes_left(pids, marker=str(folder))
            left += _threads_left(threads)
            # A foreign gRPC library in this process opens what it likes, and keeps it.
            if request.node.get_closest_marker("interop") is None:
                left += _descriptors_left(descriptors)
            left += [f"file {path.relative_to(folder)}" for path in sorted(folder.rglob("*"))]
            shutil.rmtree(folder, ignore_errors=True)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


def _pids() -> set[int]:
    try:
        return {int(name) for name in os.listdir("/proc") if name.isdigit()}
    except FileNotFoundError:
        return set()


def _processes_left(before: set[int], marker: str) -> list[str]:
    """Name the children of ours that are left, and orphans that have the test's TMPDIR.

    A child must be gone, and reaped, when its test ends. An orphan ends by itself, when it notices
    that it is one, so it gets a moment.
    """
    children = [pid for pid in _pids() - before if _parent(pid) == os.getpid()]
    left = [f"child process {pid} ({_command(pid)})" for pid in children]
    for pid in children:
        _kill(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    give_up = time.monotonic() + 3
    while orphans := [pid for pid in _pids() - before if _has_variable(pid, marker)]:
        if time.monotonic() > give_up:
            left += [f"orphaned process {pid} ({_command(pid)})" for pid in orphans]
            for pid in orphans:
                _kill(pid)
            break
        time.sleep(0.01)
    return left


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name is in parentheses and may itself hold some.
    return int(stat.rpartition(b")")[2].split()[1])


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return b" ".join(words).decode(errors="replace").strip()[:120] or "not reaped"


def _has_variable(pid: int, value: str) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"TMPDIR=" + os.fsencode(value) in variables


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# Threads that a pool keeps for later use, by the beginning of their names.
_POOLS = ("AnyIO worker thread", "Trio thread ", "asyncio_")


def _threads_left(before: set[threading.Thread]) -> list[str]:
    left: list[str] = []
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(_POOLS) or thread.name.endswith("(_poll_wrapper)"):
            continue
        thread.join(timeout=1)
        if thread.is_alive():
            left.append(f"thread {thread.name}")
    return left


def _descriptors() -> dict[str, str]:
    """The open sockets, pipes, pidfds and memfds of this process."""
    found: dict[str, str] = {}
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return found
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:")):
            found[number] = target
    return found


def _descriptors_left(before: dict[str, str]) -> list[str]:
    def new() -> list[str]:
        return [
            f"descriptor {n} ({what})"
            for n, what in _descriptors().items()
            if before.get(n) != what
        ]

    if not new():
        return []
    # Only now, because it takes time: an object in a cycle still holds its descriptor, and
    # collecting it brings the warning that names its kind.
    gc.collect()
    return new()
