"""The program of a plugin that serves what a test defines."""

from __future__ import annotations

import importlib.util
import operator
import sys

__all__ = ["main"]


def main(target: str) -> None:
    """Serve; see `plugin_command`.

    Args:
        target: The file of a module, the module's name, and that of what is called; with `:`
            between them.
    """
    from pyvider_rpcplugin import RPCPluginServer, plugin_server  # noqa: PLC0415 - when it is run

    file, module_name, name = target.rsplit(":", 2)
    if module_name == "__main__":
        module_name = "plugin"  # Its program is not to be run again.
    # By its file: test runners load modules that cannot be imported by their names.
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    made = operator.attrgetter(name)(module)()
    server = made if isinstance(made, RPCPluginServer) else plugin_server(handler=made)
    server.run()
