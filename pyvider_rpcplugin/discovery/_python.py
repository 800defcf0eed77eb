"""Plugins in Python, each in an environment of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError

from ._environments import Made, environment_of
from ._program import PluginProgram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._environments import Installer
    from ._program import OnProgress


def python_plugin(
    script: str | os.PathLike[str] | None = None,
    *args: str,
    module: str | None = None,
    env: str | os.PathLike[str] | Sequence[str] | None = None,
    python: str | os.PathLike[str] | None = None,
    name: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    installer: Installer | None = None,
    on_progress: OnProgress | None = None,
) -> PluginProgram:
    """Say which environment a plugin in Python runs in.

    `plugin_client` and all its kin take what this returns as their command. The plugin is run by
    the environment's interpreter itself, and without the host's PYTHONPATH.

    Args:
        script: The plugin's file.
        args: Arguments for the plugin.
        module: Instead of a script: a module that is installed in the environment, to be run.
        env: The folder of a virtual environment; or a list of requirements, each as a line of pip's
            requirement files. They have to name this library, which the plugin needs too. None:
            what the script says itself (PEP 723); a script that says nothing, and a module, run in
            the host's environment.
        python: The interpreter to make an environment of, by path or by its name on PATH. None:
            that which runs here.
        name: What the plugin is called; by default as its file, or its module.
        cache: The folder in which environments are kept; by default one in the user's folder for
            caches.
        installer: "uv" or "pip"; None: uv if it is on PATH.
        on_progress: Called with an `EnvironmentProgress` at each step when an environment is made;
            may be asynchronous.

    Raises:
        ConfigError: The arguments make no sense together.
    """
    if (script is None) == (module is None):
        msg = "python_plugin() takes a script or a module"
        raise ConfigError(msg, phase="environment")
    path = None if script is None else os.path.abspath(script)
    words = ["-m", str(module)] if path is None else [path]
    stem = str(module) if path is None else os.path.splitext(os.path.basename(path))[0]
    return PluginProgram(
        name or stem,
        [*words, *args],
        source="module" if path is None else "script",
        path=path or str(module),
        environment=environment_of(env, path, Made(python, cache, installer)),
        on_progress=on_progress,
    )
