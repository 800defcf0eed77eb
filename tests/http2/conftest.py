from __future__ import annotations

import pytest

from tests.http2.peer import Link


@pytest.fixture(params=[0, 1, 13], ids=["whole", "bytewise", "mixed"])
def step(request):
    """How the bytes are cut on their way: not at all, one by one, or across all borders."""
    return request.param


@pytest.fixture
def client(step):
    """Our client connected to a server of `h2`."""
    return Link(client_side=True, step=step)


@pytest.fixture
def server(step):
    """Our server connected to a client of `h2`."""
    return Link(client_side=False, step=step)
