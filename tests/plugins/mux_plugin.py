"""Several plugins in one program, on the loop that the environment names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyvider_rpcplugin import ConfigError, plugin_mux, plugin_server
from tests.plugins import run_on
from tests.plugins.echo_plugin import Echo
from tests.plugins.misc_plugin import Misc


def echo():
    print("made", file=sys.stderr)
    return plugin_server(handler=Echo())


def broken():
    msg = "this one is not ready"
    raise ConfigError(msg)


if __name__ == "__main__":
    mux = plugin_mux({"misc": plugin_server(handler=Misc()), "echo": echo, "broken": broken})
    run_on(os.environ["LOOP"], mux)
