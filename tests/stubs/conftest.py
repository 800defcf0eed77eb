from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
GROUPS = {
    "aio": "async",
    "reader-writer": "async",
    "blocking": "blocking",
    "intercepted": "intercepted",
}

Said = dict[str, list[str]]


def peer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.stubs.peer", *arguments]


@contextlib.contextmanager
def server(kind: str) -> Iterator[str]:
    """A server in a process of its own; its sockets' paths begin with what is given."""
    with tempfile.TemporaryDirectory(prefix="pv-stubs-", dir="/tmp") as folder:
        address = f"{folder}/{kind}"
        with subprocess.Popen(
            peer(kind, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what handlers fail with is logged there, as it should be
            env=ENVIRONMENT,
            cwd=ROOT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline(), f"the server {kind} has ended"
                yield address
            finally:
                process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                process.kill()


def said_by_grpcio(address: str, servicer: str) -> Said:
    """What a program with grpcio's channel says of the servicer at this address."""
    done = subprocess.run(
        peer("run", f"{address}-{servicer}", GROUPS[servicer]),
        capture_output=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    said: Said = json.loads(done.stdout)
    return said


@pytest.fixture(scope="session")
def grpcio_server() -> Iterator[str]:
    """Where grpcio's server has the servicers."""
    with server("grpcio") as address:
        yield address


@pytest.fixture(scope="session")
def reference(grpcio_server: str) -> Callable[[str], Said]:
    """What a program on grpcio alone says, by servicer."""
    return cache(lambda servicer: said_by_grpcio(grpcio_server, servicer))


@pytest.fixture(scope="session", params=["asyncio", "trio"])
def with_our_server(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Said]]:
    """What a program with grpcio's channel says to our server, by servicer."""
    with server(request.param) as address:
        yield cache(lambda servicer: said_by_grpcio(address, servicer))
