"""The programs in Go that the tests here talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import programs


@pytest.fixture(scope="session")
def go_programs() -> Path:
    """The folder of the programs in Go. Without Go the test is skipped, unless Go is required."""
    return programs.or_skip(programs.build)


@pytest.fixture(params=[False, True], ids=["plain", "mtls"])
def mtls(request: pytest.FixtureRequest) -> bool:
    """Whether the host asks for AutoMTLS."""
    asked: bool = request.param
    return asked


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop of a plugin in Python."""
    name: str = request.param
    return name
