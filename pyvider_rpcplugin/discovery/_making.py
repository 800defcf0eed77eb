"""Making an environment: once, whoever wants it at the same time, and whole or not at all.

An environment is a folder that is named by a hash of what it is made of. It cannot be moved, so it
is made where it stays, under a lock, and counts once a file in it says that it is complete. The
lock is the system's, so a maker that is killed loses it; what installs holds it too, so that the
next maker waits until that has ended, and then begins anew.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import math
import os
import shutil
import sys
from collections import deque
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import ConfigError, PluginExit, SecurityError, TransportError
from pyvider_rpcplugin.process import LineSplitter, start_process

from ._environments import interpreter_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._environments import Installer
    from ._program import Teller

# Whoever waits for somebody else's environment looks again so often, in seconds.
_POLL = 0.1
_COMPLETE = "plugin-environment.json"
# Where installers put what they need for a while: those that are killed leave it.
_SCRATCH = "scratch"
_LINES_KEPT = 64
_LINES_SHOWN = 4
# The oldest pip that installs into another environment.
_PIP_FOR_OTHERS = 23
# Changed when environments are made differently, so that older ones are not taken for the same.
_FORMAT = 1


class Recipe(msgspec.Struct, frozen=True):
    """What an environment is made of.

    Attributes:
        requirements: The lines of the list.
        requires_python: The versions of Python that will do; empty: any.
        python: The interpreter to make it of.
        own: Whether that is the one which runs here.
        installer: What installs; None: uv if it is there, or else pip.
    """

    requirements: tuple[str, ...]
    requires_python: str
    python: str
    own: bool
    installer: Installer | None = None

    def key(self) -> str:
        """The name of the environment's folder.

        Raises:
            ConfigError: The interpreter is not there.
        """
        binary = os.path.realpath(self.python)
        try:
            about = os.stat(binary)
        except OSError as error:
            msg = f"there is no Python interpreter {self.python!r} any more"
            raise ConfigError(msg, "Name another one: python=.", phase="environment") from error
        parts = [binary, about.st_size, about.st_mtime_ns, self.requirements, self.requires_python]
        return hashlib.sha256(msgspec.json.encode([_FORMAT, *parts])).hexdigest()[:32]


async def make_environment(recipe: Recipe, parent: str, teller: Teller) -> str:
    """Make an environment, unless it is there; return its folder.

    Raises:
        ConfigError: This version of Python will not do.
        SecurityError: Others than this user may write to the folder that it is to be made in.
        TransportError: It cannot be made.

    Cancellation:
        Nothing is left of it.
    """
    folder = await anyio.to_thread.run_sync(functools.partial(_look, recipe, parent))
    if await anyio.to_thread.run_sync(_is_complete, folder):
        return folder
    async with _locked(f"{folder}.lock", teller, folder) as lock:
        if await anyio.to_thread.run_sync(_is_complete, folder):
            return folder
        # What a maker that was killed has left.
        await anyio.to_thread.run_sync(_remove, folder)
        try:
            await _make(recipe, folder, lock, teller)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, folder)
            if isinstance(error, OSError):  # no room, for one
                raise _useless(parent, error) from error
            raise
    await teller.tell("ready", folder)
    return folder


def _look(recipe: Recipe, parent: str) -> str:
    """Make the folder that environments are kept in, and see that it is private."""
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        about = os.stat(parent)
    except OSError as error:
        raise _useless(parent, error) from error
    # Root's are as good as one's own: made once for all users of a machine, or of a container.
    if os.name == "posix" and (about.st_uid not in {0, os.geteuid()} or about.st_mode & 0o022):
        msg = f"others than this user may write to {parent}, where environments are kept"
        hint = "Whoever may could put code into plugins: chmod 700, or name another folder."
        raise SecurityError(msg, hint, phase="environment")
    return os.path.join(parent, recipe.key())


def _useless(parent: str, error: OSError) -> TransportError:
    reason = (error.strerror or str(error)).lower()
    msg = f"environments cannot be kept in {parent}: {reason}"
    return TransportError(msg, "Name another folder: cache=.", phase="environment")


def _is_complete(folder: str) -> bool:
    if not os.path.isfile(os.path.join(folder, _COMPLETE)):
        return False
    try:
        interpreter_of(folder)
    except ConfigError:
        return False  # The interpreter that it was made of has gone.
    return True


def _remove(folder: str) -> None:
    if os.path.lexists(folder):
        # First what says that it is complete: it may be a long way to the end.
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, _COMPLETE))
        shutil.rmtree(folder, ignore_errors=True)


# --- one maker at a time ---------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _locked(path: str, teller: Teller, folder: str) -> AsyncGenerator[int]:
    """Be the only one for the length of the block; yields the lock's descriptor."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _useless(os.path.dirname(path), error) from error
    try:
        if not _take(lock, path):
            await teller.tell("waiting", folder)
            while not _take(lock, path):  # noqa: ASYNC110 - the system tells nobody of its end
                await anyio.sleep(_POLL)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, path: str) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        # Not every file system has locks.
        raise _useless(os.path.dirname(path), error) from error
    return True


# --- making ----------------------------------------------------------------------------------


async def _make(recipe: Recipe, folder: str, lock: int, teller: Teller) -> None:
    maker = _Maker(recipe, folder, lock, teller)
    await teller.tell("creating", folder)
    await maker.create()
    await anyio.to_thread.run_sync(_check_version, folder, recipe.requires_python)
    if recipe.requirements:
        await teller.tell("installing", folder)
        await maker.install()
    await anyio.to_thread.run_sync(_complete, folder, recipe)


class _Maker:
    """Runs the programs that make one environment."""

    def __init__(self, recipe: Recipe, folder: str, lock: int, teller: Teller) -> None:
        self._recipe = recipe
        self._folder = folder
        self._lock = lock
        self._teller = teller
        self._uv = _find_uv(recipe.installer)
        # Another one's pip need not know that version of Python.
        self._shares_pip = recipe.own and _pip_here() >= _PIP_FOR_OTHERS

    async def create(self) -> None:
        """Make it, without packages."""
        if self._uv is not None:
            command = [self._uv, "venv", "--no-config", "--python", self._recipe.python]
            await self._run("uv", [*command, self._folder])
            return
        without = ["--without-pip"] if self._shares_pip or not self._recipe.requirements else []
        command = [self._recipe.python, "-I", "-m", "venv", *without, self._folder]
        await self._run("venv", command)

    async def install(self) -> None:
        """Install the requirements."""
        listed = os.path.join(self._folder, "requirements.txt")
        text = "".join(f"{line}\n" for line in self._recipe.requirements)
        await anyio.Path(listed).write_text(text, encoding="utf-8")
        await anyio.Path(self._folder, _SCRATCH).mkdir()
        python = interpreter_of(self._folder)
        if self._uv is not None:
            command = [self._uv, "pip", "install", "--python", python, "-r", listed]
            await self._run("uv", command)
            return
        pip = [python, "-I", "-m", "pip"]
        if self._shares_pip:
            pip = [self._recipe.python, "-I", "-m", "pip", "--python", python]
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        command = [*pip, "install", "--no-warn-script-location", *options, "-r", listed]
        await self._run("pip", command)

    async def _run(self, program: str, command: list[str]) -> None:
        """Run one program to its end.

        Raises:
            TransportError: It did not succeed, with what it printed last.
        """
        tail: deque[str] = deque(maxlen=_LINES_KEPT)
        splitter = LineSplitter()
        lines, heard = anyio.create_memory_object_stream[str](math.inf)
        ended = PluginExit(None)

        def note(line: str) -> None:
            tail.append(line)
            lines.send_nowait(line)

        def note_all(data: bytes) -> None:
            for line in splitter.feed(data):
                note(line)

        async def tell() -> None:
            async with heard:
                async for line in heard:
                    await self._teller.tell("output", self._folder, line)

        # The lock goes along: if this process is killed, that one may still be writing.
        shared = () if sys.platform == "win32" else (self._lock,)
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(tell)
                with lines:
                    async with start_process(
                        command,
                        env=_environment(self._folder),
                        on_stderr_line=note,
                        pass_fds=shared,
                    ) as process:
                        await process.drain_stdout(note_all)
                        ended = await process.wait()
                    for line in splitter.flush():
                        note(line)
        if ended.status != 0:
            exit_ = PluginExit(ended.status, tuple(tail))
            msg = f"the environment of the plugin {self._teller.name} cannot be made: "
            msg += f"{program} {exit_.describe()}"
            hint = "\n".join(_last_words(program, exit_)) or None
            raise TransportError(msg, hint, phase="environment", exit=exit_)


def _last_words(program: str, exit_: PluginExit) -> list[str]:
    """The last lines; of what uv says, the beginning of its last paragraph on what went wrong."""
    lines = list(exit_.last_lines(_LINES_KEPT))
    for at in range(len(lines) - 1, -1, -1):
        if program == "uv" and lines[at].startswith("  \u00d7 "):
            return lines[at : at + _LINES_SHOWN]
    return lines[-_LINES_SHOWN:]


def _find_uv(installer: Installer | None) -> str | None:
    found = None if installer == "pip" else shutil.which("uv")
    if installer == "uv" and found is None:
        msg = "uv is not on PATH"
        raise ConfigError(msg, "Install it, or leave installer= out.", phase="environment")
    return found


def _pip_here() -> int:
    """The version of pip that is installed beside this library; 0: none is."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - seldom needed

    try:
        return int(version("pip").partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0


def _environment(folder: str) -> dict[str, str]:
    """The environment of what makes an environment: nothing of this process's Python."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PLUGIN_")) and name != "VIRTUAL_ENV"
    }
    scratch = os.path.join(folder, _SCRATCH)
    if os.path.isdir(scratch):
        kept |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def _check_version(folder: str, required: str) -> None:
    if not required:
        return
    from packaging.specifiers import (  # noqa: PLC0415 - few say it
        InvalidSpecifier,
        SpecifierSet,
    )

    have = _version_of(folder)
    try:
        fits = SpecifierSet(required).contains(have, prereleases=True)
    except InvalidSpecifier:
        msg = f"requires-python: {required!r} says no versions of Python"
        raise ConfigError(msg, 'It looks like ">= 3.11".', phase="environment") from None
    if not fits:
        msg = f"the plugin needs Python {required}, and its environment would have {have}"
        raise ConfigError(msg, "Name another interpreter: python=.", phase="environment")


def _version_of(folder: str) -> str:
    """The version of an environment's Python, as it was written down when it was made."""
    with open(os.path.join(folder, "pyvenv.cfg"), encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition("=")
            if name.strip() in {"version", "version_info"}:
                return value.strip()
    return "0"


def _complete(folder: str, recipe: Recipe) -> None:
    """Say that it is whole: the file is there with all of its content, or it is not."""
    shutil.rmtree(os.path.join(folder, _SCRATCH), ignore_errors=True)
    path = os.path.join(folder, _COMPLETE)
    with open(f"{path}.new", "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(recipe)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
