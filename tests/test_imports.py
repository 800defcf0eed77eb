"""What an import costs, and what the package offers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyvider_rpcplugin

from .test_alias import public_modules


def modules_after(code: str) -> set[str]:
    """The modules that `code` loads beyond those that any program has loaded."""
    listing = f"import json, sys; before = set(sys.modules)\n{code}\n"
    listing += "print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy():
    loaded = modules_after("import pyvider_rpcplugin")
    own = {name for name in loaded if name.startswith("pyvider")}
    assert own == {
        "pyvider_rpcplugin",
        "pyvider_rpcplugin._collector",
        "pyvider_rpcplugin._lazy",
        "pyvider_rpcplugin._version",
    }
    roots = {name.partition(".")[0] for name in loaded}
    assert roots - sys.stdlib_module_names == {"pyvider_rpcplugin"}
    assert not roots & {"asyncio", "logging", "socket", "ssl", "subprocess"}


def test_importing_by_the_second_name_loads_nothing_heavy_either():
    loaded = modules_after("import pyvider.rpcplugin")
    roots = {name.partition(".")[0] for name in loaded}
    assert roots - sys.stdlib_module_names == {"pyvider", "pyvider_rpcplugin"}
    assert not roots & {"asyncio", "logging", "socket", "ssl", "subprocess"}


def test_the_errors_need_the_standard_library_alone():
    loaded = modules_after("import pyvider_rpcplugin.exception")
    roots = {name.partition(".")[0] for name in loaded}
    assert roots - sys.stdlib_module_names == {"pyvider_rpcplugin"}


HOST = """
import json, sys
import anyio
from pyvider_rpcplugin import RPCPluginError, plugin_client

def note(event, arguments):
    if event == "subprocess.Popen":
        loaded[:] = sys.modules

async def main():
    options = {"auto_mtls": False, "client_retry_enabled": False}
    try:
        async with plugin_client([sys.executable, "-c", ""], **options):
            pass
    except RPCPluginError:
        pass

loaded = []
sys.addaudithook(note)
anyio.run(main, backend=sys.argv[1])
print(json.dumps(loaded))
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_host_starts_its_plugin_before_it_loads_what_it_needs_once_that_runs(backend: str):
    done = subprocess.run(
        [sys.executable, "-c", HOST, backend], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert "pyvider_rpcplugin.client._launch" in loaded
    if backend == "asyncio":  # trio loads it for itself
        assert "hashlib" not in loaded
    own = {name.removeprefix("pyvider_rpcplugin.") for name in loaded}
    assert not own & {
        "client._host",
        "client._relay",
        "crypto._source",
        "handshake._line",
        "handshake._reader",
        "http2",
        "logs._parse",
        "rpc._channel",
        "services.broker",
        "services.stdio",
        "transport.tcp",
        "transport.unix",
    }


@pytest.mark.parametrize("name", pyvider_rpcplugin.__all__)
def test_each_public_name_can_be_imported(name):
    assert getattr(pyvider_rpcplugin, name) is not None
    assert name in dir(pyvider_rpcplugin)


def test_the_public_names_are_those_that_type_checkers_are_told():
    homes = [name for names in pyvider_rpcplugin._HOMES.values() for name in names]
    assert sorted([*homes, "__version__"]) == sorted(pyvider_rpcplugin.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pyvider_rpcplugin.nothing


@pytest.mark.parametrize("name", public_modules())
def test_each_public_module_says_what_it_offers(name):
    module = importlib.import_module(f"pyvider_rpcplugin.{name}")
    offered = module.__all__
    assert len(set(offered)) == len(offered)
    for member in offered:
        getattr(module, member)
    own = {
        member
        for member, value in vars(module).items()
        if not member.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert own <= set(offered)


def test_the_type_marker_is_there():
    assert (Path(pyvider_rpcplugin.__file__).parent / "py.typed").is_file()
