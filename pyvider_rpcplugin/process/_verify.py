"""Checking a program, and starting exactly what was checked.

Between the check of a file and its execution somebody could put another one in its place. On Linux
the very file that was hashed is executed, through its descriptor, and a Python script is handed to
its interpreter as the bytes that were hashed. What can only be named by its path (further files,
scripts of other interpreters; everything elsewhere) is checked again once the process runs, before
anything is sent to it; so is the program, in case it was written into.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec

from pyvider_rpcplugin.exception import ConfigError, SecurityError
from pyvider_rpcplugin.process._diagnose import check_command, explain
from pyvider_rpcplugin.process._hash import file_digest, open_file

if sys.platform.startswith("linux"):
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from pyvider_rpcplugin.process.checksum import SecureConfig

# Whether files can be executed, and handed over, by their descriptors.
_EXACT = sys.platform.startswith("linux") and os.path.exists("/proc/self/fd")

_MFD_NOEXEC_SEAL = 0x8
_SHEBANG_BYTES = 256
_LARGEST_SCRIPT = 16 << 20

# What runs a script from a descriptor as the interpreter itself would run the file: the arguments,
# where it finds its modules, what it knows of itself. Written for any version of Python 3.
_RUN_SCRIPT = """\
def _start():
    import os, sys
    number, path = int(sys.argv[1]), sys.argv[2]
    del sys.argv[:2]
    with open(number, "rb") as file:
        source = file.read()
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    names = globals()
    del names["_start"]
    names["__file__"] = os.path.join(os.getcwd(), path)
    names["__cached__"] = None
    return compile(source, names["__file__"], "exec", dont_inherit=True)
exec(_start())
"""


class Checked(msgspec.Struct):
    """What to start: as `subprocess.Popen` takes it."""

    command: list[str]
    executable: str | None = None
    pass_fds: tuple[int, ...] = ()
    algorithm: str = ""
    again: list[tuple[str | IO[bytes], bytes]] = msgspec.field(default_factory=list)
    held: ExitStack = msgspec.field(default_factory=ExitStack)

    async def check_again(self) -> None:
        """Check what could have been exchanged meanwhile, now that the process runs.

        Raises:
            SecurityError: It was.
        """
        if self.again:
            await anyio.to_thread.run_sync(self._check_again)
        self.held.close()

    def _check_again(self) -> None:
        for file, digest in self.again:
            if isinstance(file, str):
                with open_file(file) as opened:
                    now = file_digest(opened, self.algorithm)
            else:
                now = file_digest(file, self.algorithm)
            if now != digest:
                msg = "the plugin's files were changed while it was being started"
                raise SecurityError(msg, "It was ended before it was called.", phase="launch")


@asynccontextmanager
async def checked(
    command: Sequence[str | os.PathLike[str]],
    secure: SecureConfig | None,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
) -> AsyncGenerator[Checked, None]:
    """Check the program of a command; start what this yields inside of the block.

    Raises:
        SecurityError: It is not the one that it should be.
        ConfigError: The command does not tell which file to check.
        TransportError: There is no such program.

    Cancellation:
        Waits until the files are hashed.
    """
    words = check_command(command)
    if secure is None:
        yield Checked(words)
        return
    folder = None if cwd is None else os.fspath(cwd)
    with ExitStack() as stack:
        yield await anyio.to_thread.run_sync(partial(_check, stack, words, secure, env, folder))


def _check(
    stack: ExitStack,
    words: list[str],
    secure: SecureConfig,
    env: Mapping[str, str],
    cwd: str | None,
) -> Checked:
    import hashlib  # noqa: PLC0415 - loads OpenSSL's hashes, which most starts do without

    program = _program(words, env, cwd)
    paths = _files(words, program, secure.files, cwd)
    result = Checked(words, algorithm=secure.algorithm, held=stack)
    digests: list[bytes] = []
    for path in paths:
        file = stack.enter_context(open_file(path))
        script = _script_in(file, words, program, cwd) if _EXACT else None
        memory = None if script is None else _memory_file(script.source)
        if script is not None and memory is not None:
            stack.enter_context(memory)
            result.command = script.command(memory.fileno())
            result.pass_fds = (memory.fileno(),)
            digests.append(hashlib.new(secure.algorithm, script.source).digest())
            continue
        digests.append(file_digest(file, secure.algorithm))
        if _EXACT and _same(file, os.path.join(cwd or "", program)) and not _interpreter_of(file):
            # By the descriptor of this process: the child has no use for one of its own.
            result.executable = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            result.again.append((file, digests[-1]))
        else:
            result.again.append((path, digests[-1]))
    secure.check(digests)
    return result


# --- which files -----------------------------------------------------------------------------


def files_of(
    command: Sequence[str | os.PathLike[str]],
    files: tuple[str, ...] | None,
    env: Mapping[str, str],
    cwd: str | None,
) -> list[str]:
    """The paths of the files to check; the arguments are those of `checked`."""
    words = check_command(command)
    return _files(words, _program(words, env, cwd), files, cwd)


def _files(
    words: list[str], program: str, files: tuple[str, ...] | None, cwd: str | None
) -> list[str]:
    folder = cwd or ""
    if files is not None:
        return [os.path.join(folder, file) for file in files]
    if not _is_python(words[0]):
        return [os.path.join(folder, program)]
    at, option = _script_index(words)
    if option == "-m":
        msg = "the command does not tell which file python -m runs: what is checked has to be named"
        raise ConfigError(msg, "SecureConfig(..., files=[...])", phase="launch")
    script = [] if at is None else [os.path.join(folder, words[at])]
    return [os.path.join(folder, program), *script]


def _program(words: list[str], env: Mapping[str, str], cwd: str | None) -> str:
    """The path of what will be executed, found as the system finds it; relative ones from `cwd`."""
    name = words[0]
    folders = [""] if os.sep in name else os.get_exec_path(env)
    paths = [os.path.join(folder, name) for folder in folders]
    for path in paths:
        found = os.path.join(cwd or "", path)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return path
    code = errno.ENOENT
    if any(os.path.exists(os.path.join(cwd or "", path)) for path in paths):
        code = errno.EACCES
    raise explain(OSError(code, os.strerror(code)), words, env, cwd)


def _is_python(program: str) -> bool:
    return os.path.basename(program).startswith(("python", "pypy"))


def _script_index(words: Sequence[str]) -> tuple[int | None, str]:
    """Where the script is among the words of `python ... script ...`, or which option is instead."""
    at = 1
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if word == "-":
            return None, "-"
        if not word.startswith("-"):
            break
        if word.startswith("--"):
            at += 2 if word == "--check-hash-based-pycs" else 1
            continue
        for place, letter in enumerate(word[1:], 1):
            if letter in "cm":
                return None, f"-{letter}"
            if letter in "WX":
                # Its value is the rest of the word, or the next word.
                at += place == len(word) - 1
                break
        at += 1
    return (at, "") if at < len(words) else (None, "-")


# --- running what was hashed -----------------------------------------------------------------


class _Script(msgspec.Struct, frozen=True):
    """A script for Python, and what it is started with."""

    source: bytes
    before: list[str]
    path: str
    after: list[str]

    def command(self, number: int) -> list[str]:
        """The command that runs it from a descriptor."""
        return [*self.before, "-c", _RUN_SCRIPT, str(number), self.path, *self.after]


def _script_in(file: IO[bytes], words: list[str], program: str, cwd: str | None) -> _Script | None:
    """What to start instead, if this file is the script for Python that the command runs."""
    if _is_python(words[0]):
        at, _ = _script_index(words)
        if at is None or not _same(file, os.path.join(cwd or "", words[at])):
            return None
        before, name, after = words[:at], words[at], words[at + 1 :]
    else:
        interpreter = _interpreter_of(file)
        if not interpreter or not _same(file, os.path.join(cwd or "", program)):
            return None
        if os.path.basename(interpreter[0]) == "env" and len(interpreter) == 2:
            del interpreter[0]
        if not _is_python(interpreter[0]):
            return None
        before, name, after = interpreter, program, words[1:]
    file.seek(0)
    source = file.read(_LARGEST_SCRIPT + 1)
    # An archive or compiled code is not handed over so.
    if len(source) > _LARGEST_SCRIPT or b"\0" in source:
        return None
    return _Script(source, before, name, after)


def _interpreter_of(file: IO[bytes]) -> list[str]:
    """The interpreter in a script's first line, with its one argument, if it has one."""
    file.seek(0)
    first = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return []
    return [os.fsdecode(word) for word in first[2:].strip().split(None, 1)]


def _same(file: IO[bytes], path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _memory_file(data: bytes) -> IO[bytes] | None:
    """A file in memory that nobody can change any more; None where that cannot be had."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            # Hardened systems refuse a file that could be executed; older ones do not know this.
            number = os.memfd_create("script", flags | _MFD_NOEXEC_SEAL)
        except OSError:
            number = os.memfd_create("script", flags)
    except OSError:
        return None
    file = open(number, "r+b", buffering=0)  # noqa: SIM115 - it is what this returns
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        file.seek(0)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        file.close()
        raise
    return file
