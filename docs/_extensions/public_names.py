"""The reference: a directive that describes what a public module exports, and a check that all is there.

`.. exports:: pyvider_rpcplugin.client` describes the names of that module's `__all__`. A name that
several modules export is described once: on the page of the module that it belongs to, under the
shortest path by which people import it. The names stand in the modules' own order.
"""

from __future__ import annotations

import ast
import contextlib
import enum
import importlib
import inspect
import pkgutil
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGE = "pyvider_rpcplugin"
# Modules that are programs, and nothing to import from.
PROGRAMS = {"pyvider_rpcplugin.cli"}

NAPOLEON = Config(
    napoleon_use_ivar=True,
    napoleon_custom_sections=["Cancellation", "Ownership"],
)

logger = logging.getLogger(__name__)


@cache
def modules() -> dict[str, list[str]]:
    """All public modules that say what they export, and what that is."""
    package = importlib.import_module(PACKAGE)
    names = [PACKAGE]
    names += [
        found.name
        for found in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
        if not any(part.startswith("_") for part in found.name.split("."))
    ]
    exported = {
        name: getattr(importlib.import_module(name), "__all__", None)
        for name in names
        if name not in PROGRAMS
    }
    return {name: list(names) for name, names in exported.items() if names is not None}


def with_types() -> None:
    """Import what annotations name and only type checkers import, so that they can be evaluated."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(PACKAGE) or not getattr(module, "__file__", None):
            continue
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for block in tree.body:
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                for statement in block.body:
                    code = ast.Module([statement], [])
                    # What comes with an extra need not be installed.
                    with contextlib.suppress(ImportError):
                        exec(compile(code, str(module.__file__), "exec"), vars(module))


class Docstring(GoogleDocstring):
    """A docstring of Google's style whose types are in the annotations, and nowhere else.

    napoleon takes what stands before a colon in a sentence for a type: in what is said of an
    attribute, a property, or of what a function returns.
    """

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        return [("", "", list(self._dedent(self._consume_to_next_section())))]


def read_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Turn a docstring into what docutils reads."""
    lines[:] = [line for line in lines if not line.startswith("Create new instance of ")]
    kind = "method" if what in {"attribute", "data", "property"} else what
    lines[:] = Docstring(lines, NAPOLEON, app, kind, name, obj, options).lines()


@cache
def exporters() -> dict[tuple[str, int], list[str]]:
    """Which modules export an object, by its name and identity."""
    found: dict[tuple[str, int], list[str]] = {}
    for module, names in modules().items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            found.setdefault((name, id(value)), []).append(module)
    return found


def home(module: str, name: str) -> str:
    """The module on whose page a name is described: the one nearest to where it is defined."""
    value = getattr(importlib.import_module(module), name)
    defined = str(getattr(value, "__module__", ""))
    of_name = exporters()[name, id(value)]
    below = [other for other in of_name if other != PACKAGE] or of_name

    def nearness(other: str) -> tuple[bool, int, str]:
        return not defined.startswith(other), -other.count("."), other

    return min(below, key=nearness)


def path(module: str, name: str) -> str:
    """The path under which a name is described: the shortest one, and rather that of its page."""
    value = getattr(importlib.import_module(module), name)
    page = home(module, name)

    def length(other: str) -> tuple[int, bool, str]:
        return other.count("."), not page.startswith(other), other

    return f"{min(exporters()[name, id(value)], key=length)}.{name}"


class NamesTable(SphinxDirective):
    """A table of a module's names, each with the first sentence of what is said of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write it, and have it parsed."""
        module = self.arguments[0]
        lines = [".. list-table::", "   :widths: 30 70", ""]
        for name in modules()[module]:
            value = getattr(importlib.import_module(module), name)
            if inspect.isroutine(value) or (inspect.isclass(value) and value.__name__ == name):
                text = (inspect.getdoc(value) or "").split("\n\n")[0].split("\n")
            else:
                text = comment_of(name, value)
            lines += [f"   * - :py:obj:`{name} <{path(module, name)}>`", f"     - {' '.join(text)}"]
        made = nodes.section()
        made.document = self.state.document
        self.state.nested_parse(StringList(lines, source=f"{module}.__all__"), 0, made)
        return made.children


class Exports(SphinxDirective):
    """Describe what a module exports."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write the directives of autodoc, and have them parsed."""
        module = self.arguments[0]
        imported = importlib.import_module(module)
        self.env.note_dependency(str(imported.__file__))
        lines = [f".. automodule:: {module}", "   :no-members:", ""]
        elsewhere = []
        for name in modules()[module]:
            if home(module, name) != module:
                elsewhere.append(name)
                continue
            lines += described(path(module, name), getattr(imported, name))
        if elsewhere:
            links = ", ".join(f":py:obj:`{name} <{path(module, name)}>`" for name in elsewhere)
            lines += [f"Described elsewhere: {links}.", ""]
        made = nodes.section()
        made.document = self.state.document
        content = StringList(lines, source=f"{module}.__all__")
        self.state.nested_parse(content, 0, made)
        return made.children


def described(full: str, value: object) -> list[str]:
    """The directive that describes one name."""
    members = ["   :members:"]
    if getattr(value, "__bases__", ()) != (object,):
        members.append("   :show-inheritance:")
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        members.append("   :undoc-members:")
    module, _, name = full.rpartition(".")
    if inspect.isclass(value) and value.__name__ == name:
        kind = "exception" if issubclass(value, BaseException) else "class"
        return [f".. auto{kind}:: {full}", *members, ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {full}", ""]
    text = comment_of(name, value)
    if not text:
        logger.warning("nothing says what %s is", full)
    return [f".. py:data:: {name}", f"   :module: {module}", "", *(f"   {one}" for one in text), ""]


@cache
def commented() -> dict[str, list[tuple[int, list[str]]]]:
    """The comments `#:` above the values of all modules, private ones too, by the values' names."""
    found: dict[str, list[tuple[int, list[str]]]] = {}
    exporters()  # which imports all that is public, and what that needs
    for name, module in sorted(sys.modules.items()):
        if name.startswith(PACKAGE) and getattr(module, "__file__", None):
            documented = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
            for (within, constant), text in documented.items():
                if not within:
                    value = getattr(module, constant, None)
                    found.setdefault(constant, []).append((id(value), text))
    return found


def comment_of(name: str, value: object) -> list[str]:
    """What a comment says of a value, which may stand in a private module."""
    for other, text in commented().get(name, ()):
        if other == id(value):
            return text
    return []


@cache
def short_names() -> dict[str, set[str]]:
    """Where a name is described, by its last part alone and by each path that leads to it."""
    found: dict[str, set[str]] = {}
    for module, names in modules().items():
        for name in names:
            place = path(module, name)
            found.setdefault(name, set()).add(place)
            found.setdefault(f"{module}.{name}", set()).add(place)
    return found


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Node | None:
    """Find the name that an annotation or a docstring means; without a link, if there is none."""
    if node.get("refdomain") != "py":
        return None
    wanted = str(node["reftarget"]).removesuffix("()").lstrip(".")
    first, _, rest = wanted.partition(".")
    for name, after in ((wanted, ""), (first, rest), (wanted.rpartition(".")[2], "")):
        places = short_names().get(name, set())
        if len(places) == 1:
            target = min(places) + (f".{after}" if after else "")
            domain: Any = env.get_domain("py")
            if target in domain.objects:
                place = domain.objects[target]
                return domain_link(app, str(node["refdoc"]), place, contnode)
    # A word in single backticks of a docstring need not be a name of ours.
    if node["reftype"] == "obj" or first in unlinked() or private(wanted):
        return contnode
    return None


def domain_link(app: Sphinx, page: str, place: Any, contnode: nodes.Element) -> nodes.Node:
    """A link to what is described at this place."""
    uri = app.builder.get_relative_uri(page, place.docname)
    made = nodes.reference("", "", internal=True, refuri=f"{uri}#{place.node_id}")
    made += contnode
    return made


@cache
def unlinked() -> set[str]:
    """Names in annotations that lead nowhere: imported from elsewhere, or of our private modules."""
    found: set[str] = set()
    for name, module in list(sys.modules.items()):
        if not name.startswith(PACKAGE) or not getattr(module, "__file__", None):
            continue
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith(PACKAGE):
                found |= {alias.asname or alias.name for alias in node.names}
            elif isinstance(node, ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found |= {goal.id for goal in node.targets if isinstance(goal, ast.Name)}
    return found - set(short_names())


def private(name: str) -> bool:
    """Whether a name in an annotation is none that people import."""
    parts = name.split(".")
    return parts[0] == PACKAGE and any(part.startswith("_") for part in parts)


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str | None
) -> tuple[str, str | None] | None:
    """Leave out of a signature what says nothing to a reader.

    Those are the arguments of classes that only the library itself makes objects of, of which no
    docstring says anything; and defaults that have no form but an address.
    """
    if name == f"{PACKAGE}.config.Settings":
        return "", None  # There is a page with a table of them.
    if what in {"class", "exception"} and inspect.isfunction(obj.__init__):
        said = f"{obj.__doc__}{obj.__init__.__doc__}"
        if not re.search(r"^ *(Args|Attributes):$", said, re.MULTILINE):
            return "", None
    if signature and " object" in signature:
        return re.sub(r"<[\w.]+ object( at \w+)?>", "...", signature), returns
    return None


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave the fields of named tuples out: the tuple's own docstring says what they are."""
    said = str(getattr(obj, "__doc__", ""))
    return True if said.startswith("Alias for field number") else None


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that no page describes."""
    domain: Any = env.get_domain("py")
    for module, names in modules().items():
        for name in names:
            if path(module, name) not in domain.objects:
                logger.warning("no page describes %s.%s", module, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Join in."""
    app.add_directive("exports", Exports)
    app.add_directive("names-table", NamesTable)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", skip)
    modules()
    with_types()
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check)
    return {"version": "1", "parallel_read_safe": True}
