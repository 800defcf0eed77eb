"""The log of a plugin program: on its way to the host, by the standard error."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from pyvider_rpcplugin.logs import format_record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_STDERR = 2

logger = logging.getLogger(__name__)


class HostHandler(logging.Handler):
    """Writes each record to descriptor 2, as one line and in one write.

    Not to `sys.stderr`: what is printed there goes another way.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write it. A host that has gone is no error."""
        try:
            _write(format_record(record))
        except Exception:  # noqa: BLE001 - boundary: as every handler does
            self.handleError(record)


def logging_to_host(level: int) -> contextlib.AbstractContextManager[None]:
    """Let all that is logged in a block go to the host, from `level` on."""
    return logging_by(HostHandler(), level)


@contextlib.contextmanager
def logging_by(handler: logging.Handler, level: int) -> Generator[None]:
    """Let all that is logged in a block go to a handler, from `level` on.

    A program whose root logger has a handler already has decided otherwise: nothing is changed.
    """
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler.setLevel(level)
    with contextlib.ExitStack() as stack:
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        if root.level == logging.WARNING:  # as it is made
            stack.enter_context(_level(root, level))
        if threading.excepthook is threading.__excepthook__:
            threading.excepthook = _log_exception
            stack.callback(setattr, threading, "excepthook", threading.__excepthook__)
        yield


def log_crash(exception: BaseException) -> None:
    """Tell the host what ends this program, whatever its logging is set up for."""
    record = logger.makeRecord(
        logger.name,
        logging.CRITICAL,
        __file__,
        0,
        f"the plugin crashed: {type(exception).__name__}: {exception}",
        (),
        (type(exception), exception, exception.__traceback__),
    )
    _write(format_record(record))


def tell_host(level: int, message: str) -> None:
    """Tell the host something that its user has to see, whatever the logging is set up for."""
    _write(format_record(logger.makeRecord(logger.name, level, __file__, 0, message, (), None)))


@contextlib.contextmanager
def _level(changed: logging.Logger, level: int) -> Generator[None]:
    before = changed.level
    changed.setLevel(level)
    try:
        yield
    finally:
        changed.setLevel(before)


def _log_exception(arguments: threading.ExceptHookArgs) -> None:
    """Log what ends a thread; by default it would be printed."""
    if arguments.exc_type is SystemExit:
        return
    name = arguments.thread.name if arguments.thread is not None else "(unknown)"
    exception = arguments.exc_value
    logger.error(
        "exception in thread %s: %r",
        name,
        exception,
        exc_info=None if exception is None else exception,
    )


@contextlib.contextmanager
def log_written_by(write: Callable[[bytes], object]) -> Generator[None]:
    """Have the lines of the log taken by a function in a block, not written to descriptor 2."""
    global _writer  # noqa: PLW0603 - so is descriptor 2
    _writer = write
    try:
        yield
    finally:
        _writer = _write_to_stderr


def _write(line: bytes) -> None:
    _writer(line)


def _write_to_stderr(line: bytes) -> None:
    # One write: several processes share this pipe, and a line must not be torn.
    with contextlib.suppress(OSError):
        while line:
            line = line[os.write(_STDERR, line) :]


_writer: Callable[[bytes], object] = _write_to_stderr
