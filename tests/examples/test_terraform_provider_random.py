"""A host of ours drives a provider of Terraform's, which knows nothing of Python."""

from __future__ import annotations

import re

import pytest

from tests.pages import shown

from .conftest import ROOT, Run

EXAMPLE = "terraform_provider_random"
HOST = ROOT / "examples" / EXAMPLE / "host.py"

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_provider_names_a_pet(run_on: Run, loop: str) -> None:
    done = run_on(loop)
    assert (done.returncode, done.stderr) == (0, "")
    schema, name = done.stdout.splitlines()
    assert schema == "a random_pet has id, keepers, length, prefix, separator"
    assert re.fullmatch("this one is called my(-[a-z]+){3}", name)


def test_the_page_shows_the_host_as_it_is() -> None:
    assert shown("go.md", "host.py") == HOST.read_text()
