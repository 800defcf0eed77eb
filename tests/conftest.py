"""What all tests share: both event loops, and the check that nothing is left behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import hypothesis
import pytest

from pyvider_rpcplugin._patience import cores
from pyvider_rpcplugin.testing._leaks import (
    all_pids,
    command_of,
    descriptors_left,
    end_process,
    open_descriptors,
    parent_of,
    threads_left,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

# These change what a Python child does (they hide a missing flush and distort start-up times), and
# variables of the plugin protocol would make this process look like a plugin.
for name in list(os.environ):
    if name in {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"} or name.startswith("PLUGIN_"):
        del os.environ[name]

# A shell without job control has what it runs in the background ignore Ctrl-C, children inherit
# that, and the tests of Ctrl-C would wait for what never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# In its debug mode asyncio warns of each step that takes 0.1 s, which any step may on a machine that
# has other work to do; tests that count log lines mean others.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))

_fail_after = anyio.fail_after


def _fail_after_as_loaded(
    delay: float | None, *arguments: Any, **options: Any
) -> AbstractContextManager[anyio.CancelScope]:
    """Bound a wait of a test, by more than it says where the machine has other work to do.

    What a test bounds by five seconds takes a moment where it has a core of its own, or hangs. The
    time of the package's own waits is as it was: only tests are told apart by who calls.
    """
    caller = sys._getframe(1).f_globals.get("__name__", "")
    if delay is not None and delay >= 5 and caller.startswith("tests."):
        delay *= min(max(1.0, 2 * os.getloadavg()[0] / cores()), 5.0)
    return _fail_after(delay, *arguments, **options)


if hasattr(os, "getloadavg"):
    anyio.fail_after = _fail_after_as_loaded  # type: ignore[assignment]

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

# Where tests take long for what they add to the others.
THOROUGH = [
    "chaos",
    "cli",
    "client/test_cancellation.py",
    "client/test_debugger.py",
    "client/test_owners.py",
    "client/test_reattach.py",
    "client/test_supervision_races.py",
    "forms",
    "fuzz",
    "hostile",
    "interop/go",
    "process/test_guardian.py",
    "packaging",
    "rpc/test_memory.py",
    "rpc/test_storm.py",
    "stubs",
    "sync/test_interrupts.py",
    "test_alias.py",
    "test_sweep.py",
    "testing",
    "trust/test_secrets.py",
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is run by `.ci/run`, and not by the command of the README."""
    here = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(here / place) for place in THOROUGH):
            item.add_marker("thorough")


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
    pids = all_pids()
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        try:
            yield
        finally:
            left = _processes_left(pids, marker=str(folder))
            left += threads_left(threads)
            # A foreign gRPC library in this process opens what it likes, and keeps it.
            if request.node.get_closest_marker("interop") is None:
                left += descriptors_left(descriptors)
            left += [f"file {path.relative_to(folder)}" for path in sorted(folder.rglob("*"))]
            shutil.rmtree(folder, ignore_errors=True)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


def _processes_left(before: set[int], marker: str) -> list[str]:
    """Name the children of ours that are left, and orphans that have the test's TMPDIR.

    A child must be gone, and reaped, when its test ends. An orphan ends by itself, when it notices
    that it is one, so it gets a moment.
    """
    children = [pid for pid in all_pids() - before if parent_of(pid) == os.getpid()]
    left = [f"child process {pid} ({command_of(pid)})" for pid in children]
    for pid in children:
        end_process(pid)
    give_up = time.monotonic() + 20
    while orphans := [pid for pid in all_pids() - before if _has_variable(pid, marker)]:
        if time.monotonic() > give_up:
            left += [f"orphaned process {pid} ({command_of(pid)})" for pid in orphans]
            for pid in orphans:
                end_process(pid)
            break
        time.sleep(0.01)
    return left


def _has_variable(pid: int, value: str) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"TMPDIR=" + os.fsencode(value) in variables
