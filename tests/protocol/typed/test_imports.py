"""What a plugin of this kind loads: its user waits for every import."""

from __future__ import annotations

from pathlib import Path

from tests.test_imports import modules_after

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"

PLUGIN = f"""
sys.path.insert(0, {str(QUICKSTART)!r})
from greeter_plugin import Greeter
from pyvider_rpcplugin import plugin_server
"""
SERVED = """
from pyvider_rpcplugin.protocol.typed import TypedService
TypedService(Greeter()).__mapping__()
"""


def test_a_typed_plugin_needs_no_protobuf_and_no_other_engine() -> None:
    loaded = modules_after(PLUGIN + "import pyvider_rpcplugin.server._server\n" + SERVED)
    assert not {name for name in loaded if name.startswith("google.protobuf")}
    assert not loaded & {"grpclib.client", "grpclib.server", "grpclib.encoding.proto", "h2"}
    assert "difflib" not in loaded


def test_of_the_package_it_loads_a_few_modules_beyond_every_plugin_s() -> None:
    server = "import pyvider_rpcplugin.factories, pyvider_rpcplugin.server._server\n"
    server += "import pyvider_rpcplugin.protocol.basic\n"
    every = modules_after(server)
    loaded = modules_after(PLUGIN + server + SERVED) - every
    base = "pyvider_rpcplugin.protocol.typed"
    assert loaded == {
        "greeter_plugin",
        base,
        f"{base}._formats",
        f"{base}._interface",
        f"{base}._iterators",
        f"{base}._messages",
        f"{base}._methods",
        f"{base}._service",
    }


def test_a_plugin_that_serves_generated_code_loads_none_of_it() -> None:
    loaded = modules_after(
        "import pyvider_rpcplugin.server._server, pyvider_rpcplugin.client._launch"
    )
    assert not {name for name in loaded if "protocol.typed" in name}
