"""The pages that show examples show them as they are, and what else they show works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, run_shown, shown

from .readmes import EXAMPLES, run_command
from .test_fastapi_app import imported

PARTS = [
    ("how-to-pools.md", "plugin", "pool/painter_plugin.py"),
    ("how-to-pools.md", "host", "pool/host.py"),
    ("how-to-pools.md", "pool", "pool/host.py"),
    ("how-to-blocking.md", "script.py", "blocking/script.py"),
    ("how-to-blocking.md", "words_plugin.py", "blocking/words_plugin.py"),
    ("how-to-fastapi.md", "app.py", "fastapi_app/app.py"),
]


@pytest.mark.parametrize(("page", "block", "file"), PARTS)
def test_a_page_shows_the_example_as_it_is(page: str, block: str, file: str) -> None:
    text = (EXAMPLES / file).read_text()
    assert shown(page, block) == text if block == Path(file).name else shown(page, block) in text


@pytest.mark.process
async def test_the_test_of_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    httpx = pytest.importorskip("httpx")
    with imported(monkeypatch) as module:
        await run_shown("how-to-fastapi.md", "test", app=module.app, httpx=httpx)


@pytest.mark.process
def test_a_worker_starts_its_plugin_and_stops_it(tmp_path: Path) -> None:
    ran = run_command(
        "python", "-c", shown("how-to-blocking.md", "worker"), cwd=EXAMPLES / "blocking"
    )
    assert ran.stdout == "['to']\n"


def test_the_table_has_every_example() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(../examples/(\w+)\)", (DOCS / "examples.md").read_text(), re.MULTILINE
    )
    assert all(name == folder for name, folder in rows)
    folders = {path.name for path in EXAMPLES.glob("[a-z]*/")}
    assert {name for name, _ in rows} == folders - {"__pycache__"}
