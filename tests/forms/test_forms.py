"""One service in several forms of generated code, each called by each form of client."""

from __future__ import annotations

import sys

import anyio
import pytest

from pyvider_rpcplugin import plugin_client

from . import betterproto2_form, grpclib_form
from .conduct import EXPECTED

pytestmark = pytest.mark.process

FORMS = {"grpclib": grpclib_form, "betterproto2": betterproto2_form}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("service", FORMS)
@pytest.mark.parametrize("client", FORMS)
async def test_each_form_of_client_calls_each_form_of_service(
    client: str, service: str, loop: str, anyio_backend_name: str
) -> None:
    program = FORMS[service].__file__ or ""
    with anyio.fail_after(10):
        async with plugin_client([sys.executable, program, loop]) as started:
            seen = await FORMS[client].conduct(started)
    missing = {"bidi"} if (client, anyio_backend_name) == ("betterproto2", "trio") else set()
    assert seen == {name: value for name, value in EXPECTED.items() if name not in missing}
