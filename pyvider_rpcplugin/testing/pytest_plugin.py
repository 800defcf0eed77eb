"""Fixtures for pytest: `pytest_plugins = ["pyvider_rpcplugin.testing.pytest_plugin"]`.

They cost nothing where they are not used, and change nothing of tests that do not ask for them. The
async ones need pytest's plugin of anyio, or what else runs async fixtures on the test's loop.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

import pyvider_rpcplugin.testing as kit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from pyvider_rpcplugin.client import RPCPluginClient

__all__ = [
    "connected_plugin",
    "launched_plugin",
    "nothing_leaked",
    "plugin_authority",
]


@pytest.fixture
async def connected_plugin() -> AsyncGenerator[Callable[..., Awaitable[RPCPluginClient]]]:
    """Connect as `connected` does, until the test ends; to be called with a handler."""
    async with AsyncExitStack() as stack:

        async def connect(*args: Any, **options: Any) -> RPCPluginClient:
            return await stack.enter_async_context(kit.connected(*args, **options))

        yield connect


@pytest.fixture
async def launched_plugin() -> AsyncGenerator[Callable[..., Awaitable[RPCPluginClient]]]:
    """Start as `launched` does, until the test ends; to be called with a class."""
    async with AsyncExitStack() as stack:

        async def launch(*args: Any, **options: Any) -> RPCPluginClient:
            return await stack.enter_async_context(kit.launched(*args, **options))

        yield launch


@pytest.fixture
def nothing_leaked() -> Iterator[None]:
    """Fail the test if it leaves processes, threads, descriptors or folders for sockets."""
    with kit.assert_nothing_leaked():
        yield


@pytest.fixture(scope="session")
def plugin_authority() -> kit.CertificateAuthority:
    """An authority that issues certificates, made once for all tests."""
    return kit.CertificateAuthority()
