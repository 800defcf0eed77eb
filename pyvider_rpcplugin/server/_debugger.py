"""Waiting for a debugger before anything is served. The host waits as long as that takes."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from ._logging import tell_host

if TYPE_CHECKING:
    from collections.abc import Generator

_STDOUT = 1
# How often it is looked for whether the host is still there.
_INTERVAL = 0.25


def wait_for_debugger() -> None:
    """Say how to attach a debugger, and return when one is there.

    That is debugpy's, if this interpreter has it: for VS Code, PyCharm and others that speak the
    Debug Adapter Protocol. Otherwise the process waits for the signal SIGCONT, which is sent by
    hand once a debugger of any other kind has been attached.

    The process ends if its host does meanwhile.
    """
    try:
        debugpy: Any = importlib.import_module("debugpy")
    except ImportError:
        _wait_for_signal()
        return
    with _stdout_kept():
        host, port = debugpy.listen(("127.0.0.1", 0))
    tell_host(
        logging.WARNING,
        f"the plugin, process {os.getpid()}, waits for a debugger: attach one that speaks to "
        f"debugpy, at {host}:{port}",
    )
    with _ending_with_host():
        debugpy.wait_for_client()


def _wait_for_signal() -> None:
    number = getattr(signal, "SIGCONT", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        tell_host(
            logging.WARNING,
            f"the plugin cannot wait for a debugger: debugpy is not installed for {sys.executable}",
        )
        return
    pid = os.getpid()
    told = threading.Event()
    before = signal.signal(number, lambda _number, _frame: told.set())
    try:
        tell_host(
            logging.WARNING,
            f"the plugin, process {pid}, waits for a debugger: attach one to the process, then let "
            f"it go on by `kill -CONT {pid}` (debugpy, which would tell by itself, is not "
            f"installed for {sys.executable})",
        )
        # In steps: a debugger that is let in by the interpreter itself needs one that runs.
        while not told.wait(_INTERVAL):
            if _host_has_gone():
                os._exit(1)
    finally:
        signal.signal(number, before)


def _host_has_gone() -> bool:
    """Whether nobody holds the other end of the pipe that the handshake line will go to."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(_STDOUT, 0)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _ending_with_host() -> Generator[None]:
    """End the process if the host goes while the block waits for somebody else."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL):
            if _host_has_gone():
                os._exit(1)

    # There is no loop yet.
    thread = threading.Thread(target=watch, name="host watch", daemon=True)  # noqa: TID251
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _stdout_kept() -> Generator[None]:
    """Have children that are started in the block write elsewhere than to the handshake's pipe."""
    saved = os.dup(_STDOUT)
    try:
        os.dup2(2, _STDOUT)
        yield
    finally:
        os.dup2(saved, _STDOUT)
        os.close(saved)
