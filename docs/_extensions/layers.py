"""Draws docs/pictures/layers.svg: the layers that import-linter keeps, out of pyproject.toml.

`python docs/_extensions/layers.py` writes the file, and so does the build of the site.
"""

from __future__ import annotations

import ast
import re
import tomllib
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "layers.svg"

WHAT = {
    "cli": "the command line",
    "testing": "pairs, misbehaving plugins, checks",
    "sync": "blocking clients",
    "aio": "asyncio without blocks",
    "otel": "OpenTelemetry",
    "admin": "for `pyvider-rpcplugin top`",
    "discovery": "finding installed plugins",
    "factories": "plugin_client(), plugin_server(), ...",
    "types": "names for annotations",
    "client": "start, call, watch, restart, end",
    "server": "serve, drain, signals, output",
    "services": "health, reflection, broker, stdio",
    "protocol": "classes become services",
    "rpc": "gRPC over any stream of octets: channels, servers, deadlines, interceptors",
    "transport": "TCP, Unix sockets, memory, TLS",
    "process": "spawn, relay, end, limits",
    "http2": "frames, headers, windows",
    "yamux": "many streams over one",
    "crypto": "certificates, TLS contexts",
    "handshake": "line, cookie, environment",
    "logs": "log lines, both ways",
    "codegen": "modules out of .proto",
    "config": "every setting, once",
    "_config_kinds": "what settings accept",
    "_tasks": "sessions",
    "_loops": "what differs between the loops",
    "_interrupts": "Ctrl-C",
    "_patience": "waits with a limit",
    "_events": "names of the log's events",
    "_forks": "forked processes",
    "exception": "the errors",
    "_lazy": "names loaded on demand",
    "_version": "",
    "_collector": "garbage, later",
}
# Where no octet is read or written, and nobody waits.
SANS_IO = {"http2", "yamux", "handshake", "logs"}
COLOURS = (
    ("#e3eefb", "#1b6ac9", {"cli", "testing", "sync", "aio", "factories", "otel", "admin"}),
    ("#e4f5ea", "#1f9d55", {"types", "client", "server", "services", "protocol", "discovery"}),
    ("#fdeee2", "#d9622b", {"rpc"}),
    ("#f4ebfb", "#8a5fbf", {"transport", "process", "http2", "yamux", "crypto", "handshake"}),
)
OTHER = ("#f2f2f2", "#777777")
WIDTH, LEFT, ROW, GAP = 900, 34, 52, 8


def layers() -> list[list[str]]:
    """The layers from the top down."""
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    [contract] = [c for c in project["importlinter"]["contracts"] if c["id"] == "layers"]
    return [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]


def drawing() -> str:
    """The picture."""
    rows = layers()
    height = len(rows) * (ROW + GAP) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f'width="{WIDTH}" height="{height}" font-family="sans-serif">',
        "<title>The layers of the package: imports go downwards only</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="5" refY="5" markerWidth="7"',
        'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="#777777"/></marker></defs>',
        f'<line x1="16" y1="14" x2="16" y2="{height - 48}" stroke="#777777" stroke-width="1.5"',
        'marker-end="url(#tip)"/>',
    ]
    for number, row in enumerate(rows):
        # The lowest ones are many, and small.
        width = (WIDTH - LEFT - GAP * len(row)) / len(row)
        for place, name in enumerate(row):
            x, y = LEFT + place * (width + GAP), number * (ROW + GAP) + GAP
            parts.append(box(name, x, y, width))
    parts.append(
        f'<text x="{LEFT}" y="{height - 16}" font-size="12" fill="#555555">Imports go downwards only. '
        "A dashed border: no input, no output, no waiting. Names with an underscore are private."
        "</text></svg>\n"
    )
    return "\n".join(parts)


def what(name: str) -> str:
    """What a part is, in a few words: those above, or how its docstring begins."""
    if name in WHAT:
        return WHAT[name]
    package = ROOT / "pyvider_rpcplugin"
    module = next(p for p in (package / f"{name}.py", package / name / "__init__.py") if p.exists())
    said = ast.get_docstring(ast.parse(module.read_text())) or ""
    return re.split(r"[.,:;]", said)[0][:40]


def box(name: str, x: float, y: float, width: float) -> str:
    """One module or package."""
    fill, edge = next(((fill, edge) for fill, edge, names in COLOURS if name in names), OTHER)
    dashes = ' stroke-dasharray="5 3"' if name in SANS_IO else ""
    middle = x + width / 2
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="6" fill="{fill}" '
        f'stroke="{edge}" stroke-width="1.3"{dashes}/>'
        f'<text x="{middle:.1f}" y="{y + 22}" text-anchor="middle" font-size="14" '
        f'font-weight="bold" fill="#222222">{escape(name)}</text>'
        f'<text x="{middle:.1f}" y="{y + 40}" text-anchor="middle" font-size="11.5" '
        f'fill="#444444">{escape(what(name))}</text>'
    )


def draw(*_: object) -> None:
    """Write the file, if it is not what it should be."""
    picture = drawing()
    if not PICTURE.exists() or PICTURE.read_text() != picture:
        PICTURE.write_text(picture)


def setup(app: Sphinx) -> dict[str, Any]:
    """Join in."""
    app.connect("builder-inited", draw)
    return {"version": "1", "parallel_read_safe": True}


if __name__ == "__main__":
    draw()
