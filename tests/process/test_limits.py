from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import ConfigError, HandshakeError, ResourceLimits, plugin_client
from pyvider_rpcplugin.process import start_process
from tests.plugins import echo

pytestmark = pytest.mark.process

KINDS = {
    "memory": resource.RLIMIT_DATA,
    "open_files": resource.RLIMIT_NOFILE,
    "cpu_seconds": resource.RLIMIT_CPU,
    "processes": resource.RLIMIT_NPROC,
}
GOOD = {"memory": 10**9, "open_files": 200, "cpu_seconds": 100, "processes": 5000}


def python(code: str) -> list[str]:
    # What it is not allowed to do it does once its standard output has been read.
    return [sys.executable, "-S", "-c", code]


async def run(code: str, limits: ResourceLimits) -> tuple[int | None, str]:
    with anyio.fail_after(10):
        async with start_process(python(code), env=os.environ, limits=limits) as process:
            exit_ = await process.wait()
    return exit_.status, "\n".join(exit_.stderr_tail)


async def test_they_are_in_force_for_a_plugin_from_its_start() -> None:
    client = plugin_client(echo(), limits=ResourceLimits(**GOOD))
    with anyio.fail_after(10):
        async with client:
            await client.ping()
            assert client.pid is not None
            for name, kind in KINDS.items():
                assert resource.prlimit(client.pid, kind)[0] == GOOD[name]


async def test_a_lower_limit_that_is_in_force_already_stays() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 150), hard))
    try:
        async with start_process(
            python("input()"), env=os.environ, limits=ResourceLimits(open_files=10_000)
        ) as process:
            assert process.pid is not None
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == min(soft, 150)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# The limits come just after the start: the process waits until they are there.
WAIT = """
import resource, time
while resource.getrlimit(resource.{})[0] == {}: time.sleep(0.01)
"""


def when_limited(kind: str, code: str) -> str:
    return WAIT.format(kind, resource.getrlimit(getattr(resource, kind))[0]) + code


async def test_memory_beyond_the_limit_is_not_to_be_had() -> None:
    code = when_limited("RLIMIT_DATA", "x = bytearray(500_000_000)")
    status, stderr = await run(code, ResourceLimits(memory=200_000_000))
    assert status == 1
    assert "MemoryError" in stderr


async def test_files_beyond_the_limit_cannot_be_opened() -> None:
    code = when_limited("RLIMIT_NOFILE", "x = [open('/dev/null') for _ in range(100)]")
    status, stderr = await run(code, ResourceLimits(open_files=50))
    assert status == 1
    assert "Too many open files" in stderr


async def test_processes_beyond_the_limit_cannot_be_started() -> None:
    # The limit does not bind root.
    become_another = "os.setuid(65534)\n" * (os.geteuid() == 0)
    code = when_limited("RLIMIT_NPROC", f"import os\n{become_another}os.fork()")
    status, stderr = await run(code, ResourceLimits(processes=1))
    assert status == 1
    assert "BlockingIOError" in stderr


async def test_who_computes_for_too_long_is_ended_and_the_error_says_by_what() -> None:
    client = plugin_client(
        python("while True: pass"), limits=ResourceLimits(cpu_seconds=1), client_retry_enabled=False
    )
    with anyio.fail_after(10), pytest.raises(HandshakeError, match="SIGXCPU"):
        await client.start()


def test_a_process_that_has_ended_already_needs_no_limits() -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    ResourceLimits(cpu_seconds=1).apply(ended.pid)


@pytest.mark.parametrize("value", [0, -1, 1.5, "100", True])
def test_a_limit_is_a_positive_whole_number(value: Any) -> None:
    for name in KINDS:
        with pytest.raises(ConfigError, match=name):
            ResourceLimits(**{name: value})
