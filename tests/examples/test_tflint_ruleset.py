"""TFLint runs a ruleset in Python, and serves it what a rule may ask."""

from __future__ import annotations

import pytest

from tests.pages import shown

from .conftest import ROOT, Run

EXAMPLE = "tflint_ruleset"

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_tflint_tells_what_the_rule_found(run_on: Run, loop: str) -> None:
    done = run_on(loop)
    # That is TFLint's way to say that it works, and that it found something.
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == (
        "1 issue(s) found:\n\n"
        'examples/tflint_ruleset/pets/main.tf:5:1: Warning - the pet "dog" has no prefix '
        "(pet_with_prefix)\n"
    )


def test_the_page_shows_the_check_as_it_is() -> None:
    assert shown("go.md", "ruleset.py") in (ROOT / "examples" / EXAMPLE / "ruleset.py").read_text()
