"""The Python environments that plugins run in."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import anyio.to_thread

from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.process._hash import file_digest, open_file

if TYPE_CHECKING:
    from pyvider_rpcplugin.process import SecureConfig

    from ._program import Teller

Installer = Literal["uv", "pip"]
# What a plugin in an environment of its own does not inherit: it would see its host's packages.
# Python takes an empty one as none.
_WITHOUT_HOST = {"PYTHONPATH": "", "PYTHONHOME": ""}


class Environment(Protocol):
    """What a program in Python runs in."""

    async def prepare(
        self, teller: Teller, secure: SecureConfig | None
    ) -> tuple[str, dict[str, str]]:
        """Make sure that it is there; give its interpreter, and the variables that go with it."""
        ...


class Made:
    """How environments are made: what `python_plugin` was given about it."""

    def __init__(
        self, python: str | os.PathLike[str] | None, folder: object, installer: Installer | None
    ) -> None:
        """Check and keep it.

        Args:
            python: The interpreter to make them of; None: this one.
            folder: Where they are kept; None: the user's folder for caches.
            installer: "uv" or "pip"; None: uv if it is there.

        Raises:
            ConfigError: There is no such installer.
        """
        if installer not in {None, "uv", "pip"}:
            msg = f"installer is {installer!r}: accepted is 'uv' or 'pip'"
            raise ConfigError(msg, phase="environment")
        self.python = None if python is None else os.fspath(python)
        self.folder = cache_folder() if folder is None else os.path.abspath(cast("Any", folder))
        self.installer: Installer | None = installer

    async def of(
        self, teller: Teller, requirements: tuple[str, ...], requires_python: str = ""
    ) -> tuple[str, dict[str, str]]:
        """Make the one with these requirements, if it is not there."""
        from ._making import Recipe, make_environment  # noqa: PLC0415 - most are made already

        python = _found_or_this(self.python)
        recipe = Recipe(requirements, requires_python, python, self.python is None, self.installer)
        folder = await make_environment(recipe, self.folder, teller)
        return interpreter_of(folder), variables_of(folder)


class HostEnvironment:
    """That of the host; or, where another interpreter was named, that one as it is."""

    def __init__(self, python: str | None = None) -> None:
        self._python = python

    async def prepare(
        self, teller: Teller, secure: SecureConfig | None
    ) -> tuple[str, dict[str, str]]:
        """Give the interpreter."""
        del teller, secure
        return _found_or_this(self._python), {}


class ExistingEnvironment:
    """One that somebody has made."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    async def prepare(
        self, teller: Teller, secure: SecureConfig | None
    ) -> tuple[str, dict[str, str]]:
        """Give its interpreter.

        Raises:
            ConfigError: There is none.
        """
        del teller, secure
        return interpreter_of(self._folder), variables_of(self._folder)


class RequiredEnvironment:
    """One that is made out of a list of requirements."""

    def __init__(self, requirements: tuple[str, ...], made: Made) -> None:
        self._requirements = requirements
        self._made = made

    async def prepare(
        self, teller: Teller, secure: SecureConfig | None
    ) -> tuple[str, dict[str, str]]:
        """Make it if it is not there."""
        del secure
        return await self._made.of(teller, self._requirements)


class ScriptEnvironment:
    """The one that a script's own metadata tells; that of the host, if there is none."""

    def __init__(self, script: str, made: Made) -> None:
        self._script = script
        self._made = made

    async def prepare(
        self, teller: Teller, secure: SecureConfig | None
    ) -> tuple[str, dict[str, str]]:
        """Make it if it is not there, of what the script says now."""
        from ._script import script_metadata  # noqa: PLC0415 - it loads what reads TOML

        source = await anyio.to_thread.run_sync(_read, self._script, secure)
        found = script_metadata(source, self._script)
        if found is None:
            return _found_or_this(self._made.python), {}
        requirements = checked_requirements(found.dependencies)
        return await self._made.of(teller, requirements, found.requires_python)


def environment_of(env: object, script: str | None, made: Made) -> Environment:
    """Read what `env=` says.

    Raises:
        ConfigError: It is neither a folder nor a list of requirements.
    """
    if env is None:
        return HostEnvironment(made.python) if script is None else ScriptEnvironment(script, made)
    if isinstance(env, str | os.PathLike):
        if made.python is not None:
            msg = "python= is for an environment that is made: one that exists has its own"
            raise ConfigError(msg, phase="environment")
        return ExistingEnvironment(os.path.abspath(os.fspath(cast("str", env))))
    return RequiredEnvironment(checked_requirements(env), made)


def checked_requirements(given: object) -> tuple[str, ...]:
    """The lines of a list of requirements, without empty ones and comments.

    Raises:
        ConfigError: It is no such list.
    """
    lines: list[Any] = list(cast("Any", given)) if isinstance(given, Iterable) else [given]
    if isinstance(given, bytes) or not all(isinstance(one, str) for one in lines):
        msg = f"an environment is a folder or a list of requirements, not {given!r}"
        raise ConfigError(msg, 'For example env=["pillow >= 10"].', phase="environment")
    stripped = (one.strip() for one in lines)
    kept = tuple(one for one in stripped if one and not one.startswith("#"))
    for one in kept:
        if "\n" in one or "\r" in one:
            msg = f"the requirement {one!r} has more than one line"
            raise ConfigError(msg, "Give a list, one requirement each.", phase="environment")
    return kept


def this_interpreter() -> str:
    """The interpreter that this process runs in.

    Raises:
        ConfigError: It is none that could run something else.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        msg = "this program is no Python interpreter that plugins could run in"
        raise ConfigError(msg, "Give python=, or an environment that exists.", phase="environment")
    return sys.executable


def found_interpreter(name: str) -> str:
    """Find an interpreter by its path, or by its name on PATH.

    Raises:
        ConfigError: There is none.
    """
    found = shutil.which(name)
    if found is None:
        msg = f"there is no Python interpreter {name!r}"
        raise ConfigError(msg, "Give the path of one, or a name on PATH.", phase="environment")
    return os.path.abspath(found)


def _found_or_this(name: str | None) -> str:
    return this_interpreter() if name is None else found_interpreter(name)


def interpreter_of(folder: str) -> str:
    """The interpreter of an environment.

    Raises:
        ConfigError: The folder is none.
    """
    places = [("bin", "python"), ("bin", "python3")]
    if os.name == "nt":
        places = [("Scripts", "python.exe"), (".", "python.exe")]
    for place in places:
        path = os.path.join(folder, *place)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    msg = f"{folder} is no Python environment: there is no {os.path.join(*places[0])} in it"
    hint = "Make one with `python -m venv`, or give a list of requirements."
    raise ConfigError(msg, hint, phase="environment")


def variables_of(folder: str) -> dict[str, str]:
    """The variables for a plugin in an environment."""
    return {**_WITHOUT_HOST, "VIRTUAL_ENV": folder}


def cache_folder() -> str:
    """Where environments are kept: in the user's folder for what can be made again."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(os.path.abspath(base), "pyvider-rpcplugin", "environments")


def _read(path: str, secure: SecureConfig | None) -> bytes:
    """Read a script; with a checksum, what it should be: before what it says is believed."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"cannot read the plugin's script {path}: {reason}"
        raise ConfigError(msg, "Check its path.", phase="environment") from error
    if secure is not None:
        secure.check([_digest_of(one, path, source, secure) for one in secure.files or (path,)])
    return source


def _digest_of(file: str, script: str, source: bytes, secure: SecureConfig) -> bytes:
    if os.path.realpath(file) == os.path.realpath(script):
        return hashlib.new(secure.algorithm, source).digest()
    with open_file(file) as opened:
        return file_digest(opened, secure.algorithm)
