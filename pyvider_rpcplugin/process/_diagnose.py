"""Why a process could not be started, in words that help."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHEBANG_BYTES = 256

_NO_ROOM = (
    "the system has no room for another process",
    "end other processes, or raise the limit (ulimit -u)",
)
_TOO_MANY_FILES = ("too many open files", "close some, or raise the limit (ulimit -n)")
_NOT_A_PROGRAM = (
    "the system cannot execute this file",
    "a script needs a first line such as #!/usr/bin/env python3, a binary must fit this system",
)
_REASONS = {
    errno.ENOEXEC: _NOT_A_PROGRAM,
    errno.E2BIG: ("command and environment are too long", "pass less in the command or in env"),
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
    errno.EAGAIN: _NO_ROOM,
    errno.ENOMEM: _NO_ROOM,
}


def check_command(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Bring a command to the form that the system takes.

    Raises:
        ConfigError: It is not a list of words.
    """
    if isinstance(command, (str, bytes, os.PathLike)):
        message = f"the command must be a list of words, not {type(command).__name__}"
        raise ConfigError(message, hint='write ["python", "plugin.py"], not "python plugin.py"')
    try:
        words: list[object] = [os.fspath(word) for word in command]
    except TypeError as error:
        message = f"the command must be a list of strings: {error}"
        raise ConfigError(message, hint='write ["python", "plugin.py"]') from None
    checked: list[str] = []
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            message = f"not a word of a command: {word!r}"
            raise ConfigError(message, hint="use strings without NUL characters")
        checked.append(word)
    if not checked or not checked[0]:
        message = "the command is empty"
        raise ConfigError(message, hint='its first word is the program, as in ["./plugin"]')
    return checked


def explain(
    error: OSError | ValueError,
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
) -> TransportError | ConfigError:
    """Turn what the attempt to start a process raised into an error of ours."""
    program = command[0]
    if isinstance(error, OSError):
        reason, hint = _reason(error, program, env, cwd)
        return TransportError(f"cannot start {program}: {reason}", hint=hint, phase="launch")
    return ConfigError(
        f"cannot start {program}: {error}",
        hint="names in env must be non-empty, without '=', and nothing may hold a NUL character",
        phase="launch",
    )


def _reason(
    error: OSError, program: str, env: Mapping[str, str], cwd: str | None
) -> tuple[str, str]:
    if cwd is not None and (trouble := _folder_trouble(cwd)):
        return trouble, "check cwd"
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return _not_found(program, env, cwd)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return _not_allowed(program, env, cwd)
    if error.errno in _REASONS:
        return _REASONS[error.errno]
    return (error.strerror or str(error)).lower(), "try to start the same command in a shell"


def _folder_trouble(cwd: str) -> str | None:
    if not os.path.exists(cwd):
        return f"the working folder does not exist: {cwd}"
    if not os.path.isdir(cwd):
        return f"the working folder is not a folder: {cwd}"
    if not os.access(cwd, os.X_OK):
        return f"the working folder may not be entered: {cwd}"
    return None


def _not_found(program: str, env: Mapping[str, str], cwd: str | None) -> tuple[str, str]:
    found = _locate(program, env, cwd)
    if found is not None:
        interpreter = _interpreter(found)
        if interpreter is None:
            return (
                "its program loader does not exist",
                "the binary is built for another system: build or download it for this one",
            )
        return (
            f"its interpreter does not exist: {interpreter}",
            f'change the first line of {found}, or name the interpreter: ["python", "{program}"]',
        )
    if " " in program.strip():
        return "no such file", 'give each word by itself: ["python", "plugin.py"]'
    if os.sep in program:
        hint = "check the path"
        if not os.path.isabs(program):
            hint += f"; it counts from {cwd or os.getcwd()}"
        return "no such file", hint
    hint = "check the name, or give a path"
    if os.path.isfile(os.path.join(cwd or "", program)):
        hint = f'a file of this name is in the working folder: ["./{program}"]'
        if program.endswith(".py"):
            hint = f'it is a script in the working folder: ["python", "{program}"]'
    return "no such program in any folder of PATH", hint


def _not_allowed(program: str, env: Mapping[str, str], cwd: str | None) -> tuple[str, str]:
    found = _locate(program, env, cwd)
    if found is None:
        return "permission denied", "this user may not enter one of the folders on the way"
    if os.path.isdir(found):
        return "it is a folder", "give the path of a program"
    if not os.stat(found).st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        if program.endswith(".py"):
            return "it is not executable", f'name the interpreter: ["python", "{program}"]'
        return "it is not executable", f"chmod +x {found}"
    if (interpreter := _interpreter(found)) and not os.access(interpreter, os.X_OK):
        return (
            f"its interpreter is not executable: {interpreter}",
            f"change the first line of {found}",
        )
    return "permission denied", "this user may not run it, or its file system forbids programs"


def _locate(program: str, env: Mapping[str, str], cwd: str | None) -> str | None:
    """Find the file that was to be started, executable or not."""
    folders = [""] if os.sep in program else os.get_exec_path(env)
    for folder in folders:
        path = os.path.join(cwd or "", folder, program)
        if os.path.exists(path):
            return path
    return None


def _interpreter(path: str) -> str | None:
    """Read the interpreter from the first line of a script."""
    try:
        with open(path, "rb") as file:
            first = file.readline(_SHEBANG_BYTES)
    except OSError:
        return None
    words = first.removeprefix(b"#!").split() if first.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None
