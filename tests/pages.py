"""The code that pages of the documentation show."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def shown(page: str, name: str) -> str:
    """The block of code that a comment with this name stands before."""
    text = (DOCS / page).read_text()
    [code] = re.findall(rf"<!-- {re.escape(name)} -->\n *```python\n(.*?)```", text, re.DOTALL)
    return textwrap.dedent(code)


async def run_shown(page: str, name: str, **names: object) -> dict[str, object]:
    """Run a block that awaits as the body of a function; return what its names were at the end."""
    body = textwrap.indent(shown(page, name), "    ")
    code = f"async def shown():\n{body}\n    return locals()\n"
    exec(compile(code, f"docs/{page}", "exec"), names)
    result: dict[str, object] = await names["shown"]()  # type: ignore[operator]
    return result
