"""Unix domain sockets."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport._folder import make_locked, new_name, remove as remove_folder
from pyvider_rpcplugin.transport._path import (
    LONGEST_PATH,
    group_number,
    let_group_in,
    temporary_folders,
)
from pyvider_rpcplugin.transport._stream import SocketListener, SocketStream
from pyvider_rpcplugin.transport.base import Connecting, RPCPluginTransport

if TYPE_CHECKING:
    import logging
    from collections.abc import AsyncGenerator, Callable

__all__ = ["UnixSocketTransport"]

logger: logging.Logger = event_logger(__name__)

_BACKLOG = 1024

# connect() gives EAGAIN while the listener's queue is full, and nothing says when it no longer
# is: look again after these pauses.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


class UnixSocketTransport(RPCPluginTransport):
    """Listens on, or connects to, a Unix domain socket.

    Args:
        path: The socket's path. To listen without one, a socket is made in a temporary folder
            that only this user may enter; both vanish at the end.
        folder: To listen without `path`: where to make the socket, under a name of its own.
        group: A group's name or number that may connect too (mode 0660 rather than 0600).
    """

    network = "unix"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        group: str | int | None = None,
    ) -> None:
        super().__init__()
        self._path = None if path is None else os.fsdecode(path)
        self._folder = None if folder is None else os.fsdecode(folder)
        self._group = group

    def __repr__(self) -> str:
        return f"<UnixSocketTransport {self._path or 'unnamed'}>"

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[SocketListener, None]:
        """Listen for the length of an `async with` block.

        A socket file that nobody listens on any more is replaced. The socket file is removed at
        the end, unless something else has taken its place meanwhile.
        """
        self._begin_listening()
        _require_unix_sockets()
        group = None if self._group is None else group_number(self._group)
        with ExitStack() as stack:
            path = self._choose_path(stack, group)
            sock = _listening_socket(stack, path, group)
            listener = SocketListener(sock, path)
            self._listener = listener
            try:
                yield listener
            finally:
                self._listener = None
                await listener.aclose()

    def _choose_path(self, stack: ExitStack, group: int | None) -> str:
        """Decide where the socket will be, and make the folder for it if it is to be ours."""
        if self._path is not None:
            return _checked_path(self._path)
        name = f"plugin-{os.urandom(6).hex()}.sock"
        if self._folder is not None:
            return _checked_path(os.path.join(os.path.abspath(self._folder), name))
        folder, lock = _make_private_folder(len(os.fsencode(name)) + 1)
        stack.callback(os.close, lock)
        stack.callback(_remove, folder, _identity(folder), remove_folder, os.getpid())
        if group is not None:
            # They may reach the socket, and see nothing else.
            let_group_in(folder, group, 0o710)
        return os.path.join(folder, name)

    def connect(self) -> Connecting[SocketStream]:
        """Connect, either by `stream = await ...` or by `async with ... as stream`."""
        return Connecting(self._connect)

    async def _connect(self) -> SocketStream:
        _require_unix_sockets()
        if self._path is None:
            message = "cannot connect to a unix socket without a path"
            raise TransportError(message, hint="pass the path that the server listens on")
        path = _checked_path(self._path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await _reach(sock, path)
            return SocketStream(sock)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            message = f"cannot connect to {path}: {_reason(error)}"
            raise TransportError(message, hint=_connect_hint(error.errno)) from error


async def _reach(sock: socket.socket, path: str) -> None:
    sock.setblocking(False)
    pause = _FIRST_PAUSE
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _listening_socket(stack: ExitStack, path: str, group: int | None) -> socket.socket:
    """Bind and listen; `stack` gets what closes the socket and removes its file."""
    _clear_stale_socket(path)
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    sock.setblocking(False)
    try:
        if sys.platform.startswith("linux"):
            # The file gets its mode from the socket at bind: it is never open to others, and
            # the umask, which belongs to the whole process, is left alone.
            os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        stack.callback(_remove, path, _identity(path), os.unlink, os.getpid())
        if group is not None:
            let_group_in(path, group, 0o660)
        elif not sys.platform.startswith("linux"):
            os.chmod(path, 0o600)
        sock.listen(_BACKLOG)
    except OSError as error:
        message = f"cannot listen on {path}: {_reason(error)}"
        raise TransportError(message, hint=_listen_hint(error.errno)) from error
    return sock


def _clear_stale_socket(path: str) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else.

    Raises:
        TransportError: Something that is no dead socket is at the path.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"cannot listen on {path}: {_reason(error)}"
        raise TransportError(message, hint=_listen_hint(error.errno)) from error
    if not stat.S_ISSOCK(found.st_mode):
        message = f"cannot listen on {path}: something that is not a socket is there"
        raise TransportError(message, hint="remove it yourself if it is not needed, or move on")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        logger.debug("transport.unix.stale path=%s", path)
        _remove(path, (found.st_dev, found.st_ino), os.unlink, os.getpid())
    elif code != errno.ENOENT:
        alive = code in {0, errno.EAGAIN, errno.EINPROGRESS}
        reason = "another process listens there" if alive else os.strerror(code).lower()
        message = f"cannot listen on {path}: {reason}"
        raise TransportError(message, hint="choose another path, or stop the other server")


def _make_private_folder(room: int) -> tuple[str, int]:
    """Make a folder that only this user may enter, short enough for a name of `room` bytes.

    Returns:
        Its path, and the descriptor of the lock by which the next one sees that it is in use.
    """
    failure: OSError | None = None
    for parent in temporary_folders():
        name = new_name()
        if len(os.fsencode(os.path.join(parent, name))) + room > LONGEST_PATH:
            continue
        try:
            return make_locked(parent, name)
        except OSError as error:
            failure = failure or error
    reason = "every path is too long" if failure is None else (failure.strerror or "").lower()
    message = f"cannot make a folder for the unix socket: {reason}"
    raise TransportError(message, hint="set TMPDIR to a short path that can be written to")


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove(
    path: str, identity: tuple[int, int], remove: Callable[[str], None], maker: int
) -> None:
    """Remove what is at the path if it is still the thing that we know, and this process's."""
    if maker != os.getpid():  # It was forked off, and its parent still listens.
        return
    try:
        if _identity(path) == identity:
            remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("transport.unix.left path=%s reason=%s", path, error.strerror)


def _checked_path(path: str) -> str:
    encoded = os.fsencode(path)
    if not encoded or b"\0" in encoded:
        message = f"not a path for a unix socket: {path!r}"
        raise TransportError(message, hint="give the path of a file in an existing folder")
    if len(encoded) > LONGEST_PATH:
        message = f"the path of the unix socket is too long ({len(encoded)} bytes): {path}"
        hint = f"this system takes at most {LONGEST_PATH} bytes: use a shorter folder"
        raise TransportError(message, hint=hint)
    return path


def _require_unix_sockets() -> None:
    if not hasattr(socket, "AF_UNIX"):
        message = "this system has no unix sockets"
        raise TransportError(message, hint="use the tcp transport")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _listen_hint(code: int | None) -> str:
    match code:
        case errno.ENOENT | errno.ENOTDIR:
            return "the folder does not exist: create it first"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return "this user may not write there: choose another folder"
        case errno.EADDRINUSE:
            return "another process has just taken the path: choose another one"
        case _:
            return "choose another path"


def _connect_hint(code: int | None) -> str:
    match code:
        case errno.ENOENT | errno.ENOTDIR:
            return "there is no such socket: has the server ended, or is the path another one?"
        case errno.ECONNREFUSED:
            return "nobody listens there any more: the server has ended without removing it"
        case errno.EACCES | errno.EPERM:
            return "this user may not open the socket: run as the server's user or group"
        case _:
            return "check the path"
