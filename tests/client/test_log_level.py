"""The log's level is a setting, of the process and of one client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin import configure, plugin_client
from tests.plugins import broken

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _level_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library = logging.getLogger("pyvider_rpcplugin")
    before = library.level
    library.setLevel(logging.NOTSET)
    monkeypatch.setattr("pyvider_rpcplugin.services._settings._applied_level", logging.NOTSET)
    monkeypatch.setattr("pyvider_rpcplugin.config._configured", {})
    yield
    library.setLevel(before)


async def fail(**settings: Any) -> None:
    """Start a plugin that writes to its stderr and ends."""
    with anyio.fail_after(5), pytest.raises(Exception, match="status 3"):
        await plugin_client(broken("exits"), **settings).start()


async def test_the_librarys_logger_has_the_level_that_is_set_last() -> None:
    library = logging.getLogger("pyvider_rpcplugin")
    await fail()
    assert library.level == logging.INFO
    configure(log_level="ERROR")
    await fail()
    assert library.level == logging.ERROR
    library.setLevel(logging.WARNING)
    await fail()
    assert library.level == logging.WARNING


async def test_a_client_has_a_level_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    # A client that was made later, of the same plugin, with another level.
    caplog.handler.setLevel(logging.DEBUG)
    talking = plugin_client(broken("exits"), log_level="DEBUG")
    with anyio.fail_after(5):
        await fail(log_level="ERROR")
        assert "reason 99" not in caplog.text
        with pytest.raises(Exception, match="status 3"):
            await talking.start()
        assert "reason 99" in caplog.text
        caplog.clear()
        await fail(log_level="ERROR")
        assert "reason 99" not in caplog.text
