"""A host in Go calls a plugin whose service is a plain class, through its generated .proto."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pyvider_rpcplugin.protocol.typed import proto_of

from .programs import FOLDER
from .typed_plugin import SERVICE, Inventory

PROTO = FOLDER / "typedproto" / "inventory.proto"


def test_the_file_that_go_was_given_is_the_one_that_the_class_makes() -> None:
    made = proto_of(Inventory, SERVICE, go_package="pyvider.test/interop/typedproto")
    assert PROTO.read_text() == made


@pytest.mark.interop
@pytest.mark.process
@pytest.mark.timeout(120, func_only=True)
def test_all_kinds_of_methods_are_called(go_programs: Path, loop: str, mtls: bool) -> None:
    plugin = [sys.executable, str(FOLDER / "typed_plugin.py"), loop]
    done = subprocess.run(
        [str(go_programs / "typed"), f"-mtls={str(mtls).lower()}", *plugin],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(done.stdout)
    missing = results.pop("missing")
    assert missing == "Unknown: KeyError: 'plum'"
    what = "InvalidArgument: Inventory.put(): Object missing required field"
    assert results.pop("no item") == f"{what} `item`"
    assert results.pop("no colour") == f"{what} `colour` - at `$.item`"
    assert results == {
        "put": 1,
        "put again": 2,
        "same": True,
        "price": 1.5,
        "colour": "COLOUR_BLUE",
        "circle": 12,
        "square": 9,
        "names": ["apple", "pear"],
        "total": 8,
        "greet": ["Good day, Ada", "Good day, "],
    }
