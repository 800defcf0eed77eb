"""That a plugin's program starts without garbage collection, and goes on as it was."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from pyvider_rpcplugin import RPCPluginProtocol, plugin_server
from pyvider_rpcplugin._collector import collection_put_off

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Literal


@pytest.fixture(autouse=True)
def collecting() -> Generator[None]:
    assert gc.isenabled()
    yield
    gc.enable()


def test_collection_is_put_off_until_it_is_said_to_go_on():
    with collection_put_off() as resume:
        assert not gc.isenabled()
        resume()
        assert gc.isenabled()
        gc.disable()
    assert not gc.isenabled(), "what the program has said since is not overruled"


def test_collection_goes_on_after_a_failure():
    with pytest.raises(ValueError, match="first"), collection_put_off():
        raise ValueError("first")
    assert gc.isenabled()


def test_collection_that_was_off_stays_off():
    gc.disable()
    with collection_put_off() as resume:
        resume()
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_what_was_made_meanwhile_is_collected_later():
    kept = Loop()
    found = weakref.ref(kept)
    before = gc.get_freeze_count()  # none, except on Python 3.12, which has some of its own there
    with collection_put_off():
        kept.itself = kept
        del kept
        frozen = gc.get_freeze_count()
    assert (frozen, gc.get_freeze_count()) == (before, before)
    gc.collect()
    assert found() is None


def test_what_the_program_has_frozen_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collection_put_off():
            pass
        assert 0 < gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


class Loop:
    """Something that only the collector can free."""

    itself: Loop


class Registers(RPCPluginProtocol):
    """Notes how things are when the program's own code is called, and fails."""

    def __init__(self) -> None:
        self.collecting: bool | None = None

    async def get_grpc_descriptors(self) -> tuple[Any, str]:
        return None, ""

    async def add_to_server(self, server: Any, handler: Any) -> None:
        self.collecting = gc.isenabled()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_program_serves_with_the_collection_as_it_was(
    backend: Literal["asyncio", "trio"], enabled: bool
):
    protocol = Registers()
    if not enabled:
        gc.disable()
    with pytest.raises(SystemExit):
        plugin_server(protocol, object(), standalone=True).run(backend)
    assert protocol.collecting is enabled
    assert gc.isenabled() is enabled
