"""Plugins that installed distributions offer, by their metadata alone.

No interpreter is run: what is installed in an environment is written down in its files.
"""

from __future__ import annotations

import glob
import os
import sys
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError

from ._environments import ExistingEnvironment, HostEnvironment, interpreter_of
from ._program import PluginProgram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import EntryPoint

    from ._environments import Environment

GROUP = "pyvider_rpcplugin.plugins"

# What runs an entry point: a function, or what has `run` as a server has. The
# plugin sees the module's name as that of its program, and what follows the two as arguments.
_RUN = (
    "import sys, importlib, operator; "
    "del sys.argv[0]; "
    "name = sys.argv.pop(1); "
    "found = operator.attrgetter(name)(importlib.import_module(sys.argv[0])); "
    "sys.exit(getattr(found, 'run', found)())"
)


def in_this_environment() -> Iterator[tuple[str, PluginProgram | ConfigError]]:
    """The plugins that are installed beside this library."""
    return _plugins(distributions(), HostEnvironment(), sys.prefix)


def in_environment(folder: str) -> Iterator[tuple[str, PluginProgram | ConfigError]]:
    """The plugins that are installed in another environment.

    Raises:
        ConfigError: It is none.
    """
    interpreter_of(folder)
    places = ["Lib/site-packages"]
    if os.name != "nt":
        places = [f"{lib}/{kind}*/site-packages" for lib in ("lib", "lib64") for kind in _KINDS]
    paths = [path for place in places for path in glob.glob(place, root_dir=folder)]
    # One of lib and lib64 may be a link to the other.
    real = {os.path.realpath(os.path.join(folder, path)) for path in paths}
    return _plugins(distributions(path=sorted(real)), ExistingEnvironment(folder), folder)


_KINDS = ("python", "pypy")


def _plugins(
    found: Iterable[Distribution], environment: Environment, where: str
) -> Iterator[tuple[str, PluginProgram | ConfigError]]:
    seen: set[str] = set()
    for one in found:
        path = str(getattr(one, "_path", "") or where)
        try:
            points = one.entry_points.select(group=GROUP)
            metadata = one.metadata if points else None
        except Exception as exc:  # noqa: BLE001 - boundary: whatever somebody has installed
            msg = f"the metadata of {path} cannot be read: {type(exc).__name__}: {exc}"
            hint = "Install that distribution again."
            yield os.path.basename(path), ConfigError(msg, hint, phase="discover")
            continue
        if metadata is None:
            continue
        name = metadata["Name"] or "?"
        # The first on the path is the one that is imported.
        if name in seen:
            continue
        seen.add(name)
        # It has no `get` before Python 3.12.
        summary = metadata["Summary"] if "Summary" in metadata else ""  # noqa: SIM401
        # There may be none in a file that was cut short.
        version = metadata["Version"] if "Version" in metadata else ""  # noqa: SIM401
        for point in points:
            yield point.name, _plugin(point, environment, path, version, summary)


def _plugin(
    point: EntryPoint, environment: Environment, path: str, version: str, summary: str
) -> PluginProgram | ConfigError:
    if not point.pattern.match(point.value):
        msg = f"the entry point {point.name} in {path} is wrong: {point.value!r} names nothing in "
        msg += "Python"
        return ConfigError(msg, 'It looks like "package.module:main".', phase="discover")
    # What is installed is imported, and nothing that lies in the working folder.
    words = ["-P", "-m", point.module]
    if point.attr:
        words = ["-P", "-c", _RUN, point.module, point.attr]
    return PluginProgram(
        point.name,
        words,
        source="entry point",
        path=path,
        version=version,
        description="" if summary == "UNKNOWN" else summary,
        environment=environment,
    )
