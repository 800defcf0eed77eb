"""The file beside a program that says what plugin it is: NAME.plugin.toml."""

from __future__ import annotations

import os
import re
import tomllib
from typing import TYPE_CHECKING, Annotated

import msgspec

from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.process import SecureConfig

from ._environments import ScriptEnvironment, checked_requirements, environment_of
from ._folder import is_program
from ._program import PluginProgram
from ._toml import what_is_wrong

if TYPE_CHECKING:
    from ._environments import Made
    from ._program import OnProgress

SUFFIX = ".plugin.toml"

_HINT = (
    "Its fields are name, version, description, protocol_versions, checksum, program, args and "
    "environment."
)


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file; all of it may be left out.

    Attributes:
        name: What the plugin is called; by default as the manifest.
        version: Its version.
        description: What it is for.
        protocol_versions: The versions of the application's protocol that it serves.
        checksum: That of the program, as "sha256:" and its digest in hexadecimal.
        program: The program's file, in the manifest's folder or below; by default the one with the
            manifest's name.
        args: Arguments for it.
        environment: What a program in Python runs in: a folder, or a list of requirements.
    """

    name: str = ""
    version: str = ""
    description: str = ""
    protocol_versions: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()
    checksum: str = ""
    program: str = ""
    args: tuple[str, ...] = ()
    environment: str | tuple[str, ...] | None = None


class BadManifestError(ConfigError):
    """A manifest that is wrong, and what else is known of its plugin.

    Attributes:
        plugin: The name of the plugin that it is about.
        programs: The paths of the programs that it may be about.
    """

    def __init__(self, message: str, hint: str | None, plugin: str, programs: set[str]) -> None:
        super().__init__(message, hint, phase="discover")
        self.plugin = plugin
        self.programs = programs

    def __reduce__(self) -> tuple[object, ...]:
        return BadManifestError, (self.message, self.hint, self.plugin, self.programs)


def read_manifest(
    path: str, name: str, made: Made, on_progress: OnProgress | None
) -> tuple[PluginProgram, str]:
    """Read a manifest.

    Args:
        path: Its path.
        name: What the plugin is called if the manifest does not say.
        made: How environments are made.
        on_progress: Is told about that.

    Returns:
        The plugin, and the path of its program.

    Raises:
        BadManifestError: It cannot be read, something in it is wrong, or its program is.
    """
    beside = path.removesuffix(SUFFIX)
    reader = _Reader(path, name, {beside, f"{beside}.exe", f"{beside}.py"})
    return reader.read(made, on_progress)


class _Reader:
    def __init__(self, path: str, name: str, programs: set[str]) -> None:
        self._path = path
        self._folder = os.path.dirname(path)
        self._name = name
        self._programs = programs

    def _wrong(self, what: str, hint: str | None = _HINT) -> BadManifestError:
        msg = f"the manifest {self._path} is wrong: {what}"
        return BadManifestError(msg, hint, self._name, self._programs)

    def read(self, made: Made, on_progress: OnProgress | None) -> tuple[PluginProgram, str]:
        found = self._load()
        self._name = found.name or self._name
        if not re.fullmatch(r"[\w][\w.+-]*", self._name):
            hint = "Letters, digits and . _ + - are accepted."
            msg = f"name: {self._name!r} is no name for a plugin"
            raise self._wrong(msg, hint)
        program = self._program(found.program)
        self._programs.add(program)
        is_script = program.endswith((".py", ".pyz"))
        if not is_script and not is_program(program):
            msg = f"program: {program} is not executable"
            raise self._wrong(msg, "Run chmod +x on it.")
        environment = None
        if is_script:
            try:
                environment = environment_of(self._environment(found), program, made)
            except ConfigError as exc:
                msg = f"environment: {exc.message}"
                raise self._wrong(msg, exc.hint) from None
            if program.endswith(".pyz") and isinstance(environment, ScriptEnvironment):
                environment = environment_of(None, None, made)
        elif found.environment is not None:
            msg = f"environment: {program} is no script in Python"
            raise self._wrong(msg, "A program without .py at its end brings its own.")
        return PluginProgram(
            self._name,
            [program, *found.args],
            source="manifest",
            path=self._path,
            version=found.version,
            description=found.description,
            protocol_versions=found.protocol_versions,
            secure=self._secure(found.checksum, program),
            environment=environment,
            on_progress=on_progress,
        ), program

    def _load(self) -> _Manifest:
        try:
            with open(self._path, "rb") as file:
                raw = tomllib.load(file)
            return msgspec.convert(raw, _Manifest)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise self._wrong(reason, "It has to be readable.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
            msg = f"it is not TOML: {exc}"
            raise self._wrong(msg) from None
        except msgspec.ValidationError as exc:
            raise self._wrong(what_is_wrong(exc)) from None

    def _program(self, given: str) -> str:
        """The path of the program."""
        if given:
            inside = os.path.normpath(given)
            if os.path.isabs(given) or inside.split(os.sep)[0] == os.pardir:
                hint = "Name a file in the manifest's folder, or below it."
                msg = f"program: {given} is elsewhere"
                raise self._wrong(msg, hint)
            path = os.path.join(self._folder, inside)
            if os.path.isfile(path):
                return path
            msg = f"program: there is no file {path}"
            raise self._wrong(msg, "Name the file that is there.")
        for path in sorted(self._programs):
            if os.path.isfile(path):
                return path
        beside = self._path.removesuffix(SUFFIX)
        msg = f"there is no program {beside} beside it"
        raise self._wrong(msg, "Name it: program.")

    def _environment(self, found: _Manifest) -> object:
        if isinstance(found.environment, str):
            return os.path.join(self._folder, found.environment)
        if found.environment is None:
            return None
        return checked_requirements(found.environment)

    def _secure(self, checksum: str, program: str) -> SecureConfig | None:
        if not checksum:
            return None
        algorithm, _, digest = checksum.partition(":")
        try:
            # The program alone: which interpreter there is, no manifest knows.
            return SecureConfig(algorithm, digest, files=[program])
        except ConfigError as exc:
            hint = 'It is "sha256:" and what `sha256sum` prints.'
            msg = f"checksum: {exc.message}"
            raise self._wrong(msg, hint) from None
