"""Links from a page to what lies beside `docs/` in the repository: the README, examples.

On a code host such a link leads to a file or a folder. Here each of them becomes a page of the site:
text in Markdown as text, code with its colours, and a folder as its README and its files. What such
a page links to becomes a page as well. A link that leads nowhere is a warning, which fails the build.
"""

from __future__ import annotations

import html
import os
import posixpath
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FOLDER = "repository"
# Files that people read; generated modules, for one, are not among them.
SHOWN = {".cfg", ".go", ".hcl", ".mod", ".proto", ".py", ".sh", ".tf", ".toml", ".yaml", ".yml"}
PICTURES = {".png", ".svg"}
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_grpc.py")

LEXERS = {name: name for name in ("go", "hcl", "ini", "json", "python", "sh", "toml", "yaml")}

logger = logging.getLogger(__name__)


def page_of(path: Path) -> str:
    """The page of the site for a file or a folder of the repository."""
    inside = path.relative_to(ROOT)
    if inside.parts[:1] == ("docs",):
        return path.relative_to(DOCS).with_suffix("").as_posix()
    return f"{FOLDER}/{inside.with_suffix('').as_posix() if inside.suffix == '.md' else inside.as_posix()}"


def target(link: str, folder: Path) -> tuple[Path, str] | None:
    """What a relative link in a file of this folder means: the path, and the part after `#`."""
    path, mark, anchor = link.partition("#")
    if not path or ":" in path.split("/")[0]:
        return None
    return Path(os.path.normpath(folder / path)), mark + anchor


class LinksOut(SphinxTransform):
    """Lead the links of our pages that go out of `docs/` to pages of the site."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        """Replace them."""
        source = Path(self.env.doc2path(self.env.docname))
        for node in [
            *self.document.findall(addnodes.download_reference),
            *self.document.findall(addnodes.pending_xref),
        ]:
            link = node.get("reftarget", "")
            # Files with the suffix of a page come as absolute paths without it.
            if node.get("refdomain") == "doc" and posixpath.isabs(link):
                link = os.path.relpath(f"{link}.md", source.parent)
            if node.get("reftype") != "myst" or not link.startswith("../"):
                continue
            found = target(link, source.parent)
            if found is None or DOCS in found[0].parents:
                continue
            path, anchor = found
            if not path.exists():
                logger.warning("%s is not in the repository", link, location=node)
                continue
            wanted(self.app).add(path)
            here = posixpath.dirname(self.env.docname)
            uri = posixpath.relpath(f"{page_of(path)}.html", here or ".") + anchor
            made = nodes.reference("", "", refuri=uri, internal=True)
            made += [child.deepcopy() for child in node.children]
            node.replace_self(made)


def wanted(app: Sphinx) -> set[Path]:
    """The files and folders that pages link to."""
    env: Any = app.env
    if not hasattr(env, "repository_files"):
        env.repository_files = set()
    found: set[Path] = env.repository_files
    return found


@cache
def tracked() -> frozenset[Path]:
    """The repository's files, so that what lies about in a checkout is not shown."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.decode()
    names = [name for name in listed.split("\0") if name]
    return frozenset(ROOT / name for name in names) or frozenset(ROOT.glob("examples/**/*"))


def made_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Make the pages, and those that they link to."""
    known = set(app.env.found_docs)
    queue, done = sorted(wanted(app) | {ROOT / "README.md"}), set[Path]()
    while queue:
        path = queue.pop()
        if path in done:
            continue
        done.add(path)
        links: set[Path] = set()
        title = path.relative_to(ROOT).as_posix()
        body = folder_body(path, links) if path.is_dir() else file_body(path, links)
        for link in sorted(links):
            if link.suffix in PICTURES:
                pictures = Path(app.outdir, "_images")
                pictures.mkdir(exist_ok=True)
                shutil.copy(link, pictures)
            elif DOCS in link.parents:
                if page_of(link) not in known:
                    logger.warning("%s links to %s, which is no page", title, link)
            elif link.exists():
                queue.append(link)
            else:
                logger.warning("%s links to %s, which is not in the repository", title, link)
        yield page_of(path), {"title": html.escape(title), "body": body}, "page.html"


def folder_body(folder: Path, links: set[Path]) -> str:
    """A folder: its README, then its files."""
    readme = folder / "README.md"
    parts = [f"<h1>{html.escape(folder.relative_to(ROOT).as_posix())}</h1>"]
    if readme.exists():
        parts = [markdown(readme, links, page=folder)]
    files = sorted(
        path
        for path in tracked()
        if folder in path.parents and path.suffix in SHOWN and not path.name.endswith(GENERATED)
    )
    for path in files:
        name = path.relative_to(folder).as_posix()
        parts.append(f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>{code(path)}')
    return "".join(parts)


def file_body(path: Path, links: set[Path]) -> str:
    """A file: text or code."""
    if path.suffix == ".md":
        return markdown(path, links, page=path)
    return f"<h1>{html.escape(path.relative_to(ROOT).as_posix())}</h1>{code(path)}"


def code(path: Path) -> str:
    """A file's code in colours."""
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    return coloured(path.read_text(), lexer)


def coloured(text: str, lexer: Any) -> str:
    """Code as Sphinx shows it."""
    made: str = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return f'<div class="highlight"><pre>{made}</pre></div>'


def markdown(path: Path, links: set[Path], *, page: Path) -> str:
    """A file in Markdown, with its links led to pages of the site."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("fence", fence)
    tokens = parser.parse(path.read_text())
    for token in tokens:
        if token.type == "heading_open":
            token.attrSet("id", slug(tokens[tokens.index(token) + 1].content))
        for child in token.children or []:
            attribute = {"link_open": "href", "image": "src"}.get(child.type)
            found = attribute and target(str(child.attrGet(attribute)), path.parent)
            if not attribute or not found:
                continue
            linked, anchor = found
            if attribute == "src":
                links.add(linked)
                child.attrSet("src", image(linked, page))
                continue
            links.add(linked)
            if ROOT in linked.parents and linked.exists():
                here = posixpath.dirname(page_of(page))
                child.attrSet("href", posixpath.relpath(f"{page_of(linked)}.html", here) + anchor)
    made: str = parser.renderer.render(tokens, parser.options, {})
    return made


def fence(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    """A block of code within Markdown."""
    token = tokens[index]
    return coloured(token.content, get_lexer_by_name(LEXERS.get(token.info.strip(), "text")))


def image(path: Path, page: Path) -> str:
    """Where the site has a picture: beside those of its pages."""
    if not path.exists():
        logger.warning("%s shows %s, which is not in the repository", page, path)
    return posixpath.relpath(f"_images/{path.name}", posixpath.dirname(page_of(page)))


def slug(title: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    kept = "".join(char for char in title.lower() if char.isalnum() or char in " -_")
    return kept.replace(" ", "-")


def setup(app: Sphinx) -> dict[str, Any]:
    """Join in."""
    app.add_transform(LinksOut)
    app.connect("html-collect-pages", made_pages)
    # A page that was not read again has no say in what is wanted, so all of them are.
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
