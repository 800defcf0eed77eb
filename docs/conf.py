"""How Sphinx makes the site of these pages: `nox -s docs`. Nothing is fetched from a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from pyvider_rpcplugin import __version__  # noqa: E402

project = "pyvider-rpcplugin"
author = "the authors of pyvider-rpcplugin"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "contents",
    "layers",
    "public_names",
    "repository_files",
]
exclude_patterns = ["_extensions", "_build", "changelog.d"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# The order of headings is the pages' own business: on a code host they stand alone.
suppress_warnings = ["myst.header"]

nitpicky = True
# The names of the standard library and of other projects, since nothing is fetched. Of this package
# none is here: one that no page describes is an error (see public_names).
nitpick_ignore_regex = [
    # How a default of msgspec's is written that is a new dictionary.
    (r"py:class", r"dict\[str"),
    (r"py:.*", r"_?(abc|anyio|asyncio|collections|cryptography|grpc|grpclib|google)\..*"),
    (r"py:.*", r"_?(logging|msgspec|pathlib|socket|ssl|types|typing)\..*"),
]

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = True
# Docstrings write names between single backticks, as the pages do; see public_names.
default_role = "py:obj"

html_theme = "furo"
html_title = f"pyvider-rpcplugin {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
