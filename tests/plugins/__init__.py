"""Plugins that tests start, each a program of its own."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def run_on(loop: str, server: Any, **options: Any) -> None:
    """Run a plugin's server as its program does: on asyncio, trio or uvloop."""
    if loop == "uvloop":
        server.run(use_uvloop=True, **options)
    else:
        server.run(backend=loop, **options)


def echo(*options: str) -> list[str]:
    """A plugin that serves the echo service; see its file for what it does when asked."""
    return [sys.executable, str(FOLDER / "echo_plugin.py"), *options]


def broken(mode: str, *options: str) -> list[str]:
    """A program that fails to be a plugin in one of the ways that its file lists."""
    return [sys.executable, str(FOLDER / "broken_plugin.py"), mode, *options]


def until_listening(path: Path) -> None:
    """Wait for a server that another process starts: its socket is there before it listens."""
    while True:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
            return
        time.sleep(0.01)


def talking(*options: str) -> list[str]:
    """A plugin that prints and logs, on the loop of its first argument."""
    return [sys.executable, str(FOLDER / "talking_plugin.py"), *options]
