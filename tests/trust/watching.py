"""Eyes for tests: on a folder of the file system, and those of another user."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534

_CREATE, _MOVED_TO, _CLOSE_WRITE, _ISDIR = 0x100, 0x80, 0x8, 0x40000000
_EVENT = struct.Struct("iIII")


class Watch:
    """What has appeared below some folders: the paths, and all that could be read from the files.

    A file that was removed before it could be read still has its path here.
    """

    def __init__(self, *folders: Path) -> None:
        self.paths: list[str] = []
        self.contents: list[bytes] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(0)
        assert self._inotify >= 0
        self._folders: dict[int, str] = {}
        self._end, self._ended = os.pipe()
        for folder in folders:
            self._add(str(folder))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _add(self, folder: str) -> None:
        number = self._libc.inotify_add_watch(
            self._inotify, os.fsencode(folder), _CREATE | _MOVED_TO | _CLOSE_WRITE
        )
        if number >= 0:  # it may have gone again
            self._folders[number] = folder

    def _run(self) -> None:
        import select

        while True:
            ready, _, _ = select.select([self._inotify, self._end], [], [])
            if self._inotify in ready:
                self._take(os.read(self._inotify, 65536))
            elif self._end in ready:
                return

    def _take(self, data: bytes) -> None:
        while data:
            number, mask, _, size = _EVENT.unpack_from(data)
            raw = data[_EVENT.size : _EVENT.size + size].rstrip(b"\0")
            data = data[_EVENT.size + size :]
            path = os.path.join(self._folders.get(number, ""), os.fsdecode(raw))
            if mask & _ISDIR:
                self._add(path)
                # What was made in it before it was watched.
                try:
                    below = [entry.path for entry in os.scandir(path)]
                except OSError:
                    below = []
                for each in below:
                    self._note(each)
            if raw:  # else it tells that a folder has gone
                self._note(path)

    def _note(self, path: str) -> None:
        self.paths.append(path)
        try:
            with open(path, "rb") as file:
                self.contents.append(file.read())
        except OSError:
            pass

    def close(self) -> None:
        os.close(self._ended)
        self._thread.join()
        os.close(self._end)
        os.close(self._inotify)


@contextmanager
def watched(*folders: Path) -> Iterator[Watch]:
    watch = Watch(*folders)
    try:
        yield watch
    finally:
        watch.close()


# Everything is loaded before it becomes somebody else, who may not read our interpreter's files.
_SOMEBODY_ELSE = """
import json, os, socket, sys
os.setgroups(json.loads(sys.argv[2])); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(path)
    sock.close()
    return "connected"
def read(path):
    with open(path, "rb") as file:
        return file.read().decode("latin-1")
actions = {"connect": connect, "read": read, "list": os.listdir, "remove": os.unlink}
for line in sys.stdin:
    name, path = json.loads(line)
    try:
        answer = actions[name](path)
    except OSError as error:
        answer = type(error).__name__
    print(json.dumps(answer), flush=True)
"""


class SomebodyElse:
    """Another user of this machine."""

    def __init__(self, groups: list[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SOMEBODY_ELSE, str(NOBODY), json.dumps(groups)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tries(self, action: str, path: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([action, path]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def somebody_else(*groups: int) -> Iterator[SomebodyElse]:
    """Start another user's process; skips the test where one cannot become another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    other = SomebodyElse(list(groups))
    with other.process:
        yield other
