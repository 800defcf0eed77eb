"""The page about providers shows the example, and the example's values are those of Terraform."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tests.pages import shown

from .conftest import ROOT

EXAMPLE = ROOT / "examples" / "terraform_provider"


def load_cty() -> ModuleType:
    spec = importlib.util.spec_from_file_location("terraform_cty", EXAMPLE / "cty.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cty = load_cty()


class Pet(msgspec.Struct, frozen=True):
    name: str
    age: int | None = None


class Home(msgspec.Struct):
    address: str
    rooms: int = 1
    size: float = 0
    heated: bool | None = None
    keys: set[str] | None = None
    pets: list[Pet] | None = None
    signs: dict[str, str] | None = None


@pytest.mark.parametrize("name", ["files.py", "plan", "main"])
def test_the_page_shows_the_provider_as_it_is(name: str) -> None:
    code = shown("how-to-terraform.md", name)
    assert code.strip()
    assert code in (EXAMPLE / "files.py").read_text()


def test_types_are_said_as_terraform_does() -> None:
    assert cty.type_of(Home) == [
        "object",
        {
            "address": "string",
            "rooms": "number",
            "size": "number",
            "heated": "bool",
            "keys": ["set", "string"],
            "pets": ["list", ["object", {"name": "string", "age": "number"}]],
            "signs": ["map", "string"],
        },
    ]


def test_values_come_back_as_they_went() -> None:
    home = Home("here", 3, 70.5, True, {"a", "b"}, [Pet("Rex", 3), Pet("Tom")], {"x": "y"})
    assert cty.decode(cty.encode(home), Home) == home
    assert cty.decode(cty.encode(None), Home) is None


def test_what_is_unknown_is_known_to_be() -> None:
    home = Home(cty.UNKNOWN, pets=[Pet(cty.UNKNOWN)], keys=cty.UNKNOWN)
    encoded = cty.encode(home)
    raw = msgspec.msgpack.decode(encoded)
    assert raw["address"] == msgspec.msgpack.Ext(0, b"\0")
    read = cty.decode(encoded, Home)
    assert read == home
    assert read.keys is cty.UNKNOWN
    # As Terraform says that it is unknown, but not null.
    refined = msgspec.msgpack.encode({"address": msgspec.msgpack.Ext(12, b"\x81\x01\xc2")})
    assert cty.decode(refined, Home).address is cty.UNKNOWN


@pytest.mark.parametrize(("number", "made"), [(3, 3), (3.0, 3), ("7", 7), (-(2**63), -(2**63))])
def test_whole_numbers_come_in_several_forms(number: Any, made: int) -> None:
    read = cty.decode(msgspec.msgpack.encode({"rooms": number}), Home)
    assert (read.rooms, type(read.rooms)) == (made, int)


@pytest.mark.parametrize("number", [1.5, "36893488147419103232"])
def test_a_number_that_does_not_fit_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match="is no whole number of 64 bits"):
        cty.decode(msgspec.msgpack.encode({"rooms": number}), Home)
