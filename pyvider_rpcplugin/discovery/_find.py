"""Finding what is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ConfigError

from ._environments import Made
from ._folder import called, files_in, is_program
from ._program import PluginProgram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._environments import Installer
    from ._program import OnProgress

logger = event_logger("pyvider_rpcplugin.discovery")

_MANIFEST = ".plugin.toml"


class _NoSuchPluginError(ConfigError, KeyError):
    """There is no plugin of a name: as mappings say it, and as this library does."""

    # Not KeyError's, which shows the message as a value.
    __str__ = ConfigError.__str__


@final
class InstalledPlugins(Mapping[str, PluginProgram]):
    """The plugins that were found, by their names, in the order of these.

    What is wrong with one is no reason not to use the others. It is in `errors`, and it is what
    `plugins[name]` raises for the one.

    Attributes:
        errors: What is wrong: bad manifests, names that are there twice.
    """

    def __init__(
        self, plugins: Mapping[str, PluginProgram], errors: Mapping[str, list[ConfigError]]
    ) -> None:
        """Not for users.

        Args:
            plugins: The good ones.
            errors: What is wrong, by the names that it is about.
        """
        self._plugins = dict(sorted(plugins.items()))
        self._errors = errors
        self.errors: tuple[ConfigError, ...] = tuple(
            error for name in sorted(errors) for error in errors[name]
        )

    def __getitem__(self, name: str) -> PluginProgram:
        """Return the plugin of this name.

        Raises:
            ConfigError: There is none, or something is wrong with it. It is a KeyError, too.
        """
        if name in self._plugins:
            return self._plugins[name]
        if name in self._errors:
            error = self._errors[name][0]
            raise _NoSuchPluginError(error.message, error.hint, phase="discover")
        there = ", ".join(self._plugins) or "none"
        msg = f"no plugin is called {name!r}"
        raise _NoSuchPluginError(msg, f"Installed: {there}.", phase="discover")

    def __iter__(self) -> Iterator[str]:
        return iter(self._plugins)

    def __len__(self) -> int:
        return len(self._plugins)

    def __or__(self, other: InstalledPlugins) -> InstalledPlugins:
        """Put together what was found in two places. A name that is in both is wrong."""
        found = _Found(strict=False)
        for one in (self, other):
            for plugin in one.values():
                found.take(plugin)
            found.errors_of(one._errors)
        return found.result()

    def __repr__(self) -> str:
        wrong = f", {len(self.errors)} wrong" if self.errors else ""
        return f"<InstalledPlugins {', '.join(self._plugins) or 'none'}{wrong}>"


def discover(
    pattern: str | None = None,
    folder: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    *,
    entry_points: bool = False,
    environments: Iterable[str | os.PathLike[str]] = (),
    strict: bool = False,
    cache: str | os.PathLike[str] | None = None,
    installer: Installer | None = None,
    on_progress: OnProgress | None = None,
) -> InstalledPlugins:
    """Find the plugins that are installed. Nothing of them is run or imported.

    In a folder, programs are found by the pattern, and manifests (NAME.plugin.toml) where NAME fits
    it. Without a pattern only manifests count: not each program in a folder need be a plugin.

    Args:
        pattern: The names of plugins in a folder, with `*` for any letters, `?` for any one, and
            `[abc]` for one of several, as in "myapp-plugin-*". It may go through folders below
            ("*/plugin"), at as many levels as it names. Hidden files (.name) have to be named as
            such. On Windows, programs have a suffix (.exe), which the pattern has to allow for.
            What its one `*` stands for is the plugin's name; or else that of the file, without
            suffix.
        folder: Where to look; one, or several.
        entry_points: Look for those of the group `pyvider_rpcplugin.plugins` in this environment.
        environments: Folders of virtual environments in which to look for them, too.
        strict: Raise the first thing that is wrong, instead of keeping it in `errors`.
        cache: The folder in which the environments of scripts are kept; see `python_plugin`.
        installer: What installs into them; likewise.
        on_progress: Is told about their making; likewise.

    Returns:
        The plugins, by their names.

    Raises:
        ConfigError: There is no such folder, it cannot be read, or this is no such pattern; there
            is nothing to look in; or, if strict, whatever is wrong with a plugin.
    """
    folders = _folders(folder)
    foreign = [os.path.abspath(one) for one in environments]
    if not folders and not entry_points and not foreign:
        msg = "there is nothing to look for plugins in"
        raise ConfigError(msg, "Give a folder, or entry_points=True.", phase="discover")
    if pattern is not None and not folders:
        msg = "a pattern is for the names in a folder, and none was given"
        raise ConfigError(msg, "discover(pattern, folder)", phase="discover")
    found = _Found(strict=strict)
    made = Made(None, cache, installer)
    for one in folders:
        _look_in(one, pattern, made, on_progress, found)
    if entry_points or foreign:
        from ._entry_points import (  # noqa: PLC0415 - it loads what reads metadata
            in_environment,
            in_this_environment,
        )

        for plugin in in_this_environment() if entry_points else ():
            found.take_or_refuse(*plugin)
        for environment in foreign:
            for plugin in in_environment(environment):
                found.take_or_refuse(*plugin)
    return found.result()


def _folders(
    given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
) -> list[str]:
    if given is None:
        return []
    several = [given] if isinstance(given, str | os.PathLike) else given
    return [os.path.abspath(one) for one in several]


def _look_in(
    folder: str,
    pattern: str | None,
    made: Made,
    on_progress: OnProgress | None,
    found: _Found,
) -> None:
    wanted = "*" if pattern is None else pattern
    programs = {} if pattern is None else _programs(folder, pattern)
    # "app-*.py" is for the manifest app-one.plugin.toml, too.
    patterns = {wanted, wanted.removesuffix(".py"), wanted.removesuffix(".exe")}
    manifests = {name for one in patterns for name in files_in(folder, one + _MANIFEST)}
    for manifest in sorted(manifests):
        from ._manifest import (  # noqa: PLC0415 - it loads what reads TOML
            BadManifestError,
            read_manifest,
        )

        path = os.path.join(folder, manifest)
        name = called(manifest.removesuffix(_MANIFEST), os.path.splitext(wanted)[0])
        try:
            plugin, program = read_manifest(path, name, made, on_progress)
        except BadManifestError as exc:
            # A program is not started without what its manifest should have said.
            for program in exc.programs:
                programs.pop(program, None)
            found.refuse(exc.plugin, exc)
        else:
            programs.pop(program, None)
            found.take(plugin)
    for path, name in programs.items():
        found.take(PluginProgram(name, [path], source="program", path=path))


def _programs(folder: str, pattern: str) -> dict[str, str]:
    """The names of the programs that fit a pattern, by their paths."""
    named = {
        os.path.join(folder, name): called(name, pattern) for name in files_in(folder, pattern)
    }
    return {
        path: name
        for path, name in named.items()
        if not path.endswith(_MANIFEST) and is_program(path)
    }


class _Found:
    """What was found so far, good and bad."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._plugins: dict[str, list[PluginProgram]] = {}
        self._errors: dict[str, list[ConfigError]] = {}

    def take(self, plugin: PluginProgram) -> None:
        """Note a plugin."""
        self._plugins.setdefault(plugin.name, []).append(plugin)

    def take_or_refuse(self, name: str, plugin: PluginProgram | ConfigError) -> None:
        """Note a plugin, or what is wrong with it."""
        if isinstance(plugin, ConfigError):
            self.refuse(name, plugin)
        else:
            self.take(plugin)

    def refuse(self, name: str, error: ConfigError) -> None:
        """Note what is wrong."""
        if self._strict:
            raise error
        logger.warning("discovery.refused reason=%s", error.message)
        self._errors.setdefault(name, []).append(error)

    def errors_of(self, errors: Mapping[str, list[ConfigError]]) -> None:
        """Note what was wrong in a place, and has been logged."""
        for name, several in errors.items():
            self._errors.setdefault(name, []).extend(several)

    def result(self) -> InstalledPlugins:
        """Tell those apart that are there twice."""
        good: dict[str, PluginProgram] = {}
        for name, plugins in self._plugins.items():
            if len(plugins) == 1 and name not in self._errors:
                good[name] = plugins[0]
            elif len(plugins) > 1:
                paths = " and ".join(plugin.path for plugin in plugins)
                msg = f"{len(plugins)} plugins are called {name!r}: {paths}"
                hint = "Remove one, or give it another name: that of its file, or in its manifest."
                self.refuse(name, ConfigError(msg, hint, phase="discover"))
        return InstalledPlugins(good, self._errors)
