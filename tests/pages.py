"""The code that pages of the documentation show. Each block has a name, in a comment before it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import anyio

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<name>[^>\n]+) -->\n)?^(?P<indent> *)```python\n(?P<code>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path) -> list[tuple[str | None, str]]:
    """All blocks of Python on a page: name and code."""
    found = _BLOCK.finditer(page.read_text())
    return [
        (match["name"], re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE))
        for match in found
    ]


def shown(page: str, name: str) -> str:
    """The block with this name."""
    path = ROOT / page if page == "README.md" else DOCS / page
    [code] = [code for called, code in blocks(path) if called == name]
    return code


async def run_shown(page: str, name: str, **names: object) -> dict[str, Any]:
    """Run a block that awaits as the body of a function; return what its names were at the end."""
    body = textwrap.indent(shown(page, name), "    ")
    code = f"async def shown():\n{body}\n    return locals()\n"
    exec(compile(code, f"{page}: {name}", "exec"), names)
    with anyio.fail_after(20):
        result: dict[str, Any] = await names["shown"]()  # type: ignore[operator]
    return result
