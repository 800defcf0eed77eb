"""The lists of links on a page of contents are the site's tables of contents.

So the page reads as a list on a code host, and a page is added to the site by adding its line. A page
that no list has is an orphan, which fails the build. The heading above a list is its caption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES = {"index", "api"}


class Contents(SphinxTransform):
    """Add a hidden table of contents for each list of links to pages."""

    default_priority = 6

    def apply(self, **kwargs: Any) -> None:
        """Add them."""
        if self.env.docname not in PAGES:
            return
        for section in list(self.document.findall(nodes.section)):
            lists = [node for node in section.children if isinstance(node, nodes.bullet_list)]
            pages = [page for one in lists for page in first_links(one)]
            if pages:
                section.append(table(self.env.docname, section[0].astext(), pages))


def first_links(listed: nodes.bullet_list) -> list[str]:
    """The page that each item links to first."""
    links = [next(item.findall(addnodes.pending_xref), None) for item in listed.children]
    return [link["reftarget"] for link in links if link is not None and link["refdomain"] == "doc"]


def table(page: str, caption: str, pages: list[str]) -> nodes.Node:
    """What the directive `toctree` makes."""
    made = addnodes.toctree()
    made["parent"] = page
    made["entries"] = [(None, name) for name in pages]
    made["includefiles"] = list(pages)
    made["caption"] = made["rawcaption"] = caption if page == "index" else None
    made["maxdepth"] = 1
    made["hidden"] = True
    made["glob"] = made["includehidden"] = made["titlesonly"] = False
    made["numbered"] = 0
    wrapper = nodes.compound(classes=["toctree-wrapper"])
    wrapper += made
    return wrapper


def setup(app: Sphinx) -> dict[str, Any]:
    """Join in."""
    app.add_transform(Contents)
    return {"version": "1", "parallel_read_safe": True}
