"""Peers in processes of their own; each lives as long as the tests of one module."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class PeerProcess:
    """A peer, and the lines that are exchanged with it."""

    def __init__(self, module: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.interop.peers.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            text=True,
        )
        self.greeting = self.hear()

    def hear(self) -> dict[str, Any]:
        """Wait for the peer's next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer has ended"
        heard: dict[str, Any] = json.loads(line)
        return heard

    def run(self, scenario: str, address: str) -> str | None:
        """Let the peer run a scenario; return how it failed."""
        assert self._process.stdin is not None
        print(json.dumps({"scenario": scenario, "address": address}), file=self._process.stdin)
        self._process.stdin.flush()
        failure: str | None = self.hear()["failure"]
        return failure

    def stop(self) -> None:
        """End the peer."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


@contextlib.contextmanager
def _server(name: str) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="pv-peer-", dir="/tmp") as folder:
        peer = PeerProcess(f"{name}_server", f"{folder}/socket")
        try:
            yield peer.greeting
        finally:
            peer.stop()


@contextlib.contextmanager
def _client(name: str) -> Iterator[PeerProcess]:
    peer = PeerProcess(f"{name}_client")
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="module")
def grpcio_server() -> Iterator[dict[str, str]]:
    """The addresses of a grpcio server."""
    with _server("grpcio") as addresses:
        yield addresses


@pytest.fixture(scope="module")
def grpclib_server() -> Iterator[dict[str, str]]:
    """The addresses of a grpclib server."""
    with _server("grpclib") as addresses:
        yield addresses


@pytest.fixture(scope="module")
def grpcio_client() -> Iterator[PeerProcess]:
    """A grpcio client."""
    with _client("grpcio") as peer:
        yield peer


@pytest.fixture(scope="module")
def grpclib_client() -> Iterator[PeerProcess]:
    """A grpclib client."""
    with _client("grpclib") as peer:
        yield peer
