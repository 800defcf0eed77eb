"""Log lines between plugin and host, as text; no I/O here.

A plugin writes each record of its log as one line of JSON, in hclog's form, to its standard error.
A host makes records of these again, and of what else comes there: lines with a level in front, the
panics of Go, the tracebacks of Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._format import format_record, level_word
    from ._parse import LogLine, StderrParser, level_name, readable

__all__ = ["LogLine", "StderrParser", "format_record", "level_name", "level_word", "readable"]

_HOMES = {  # A plugin writes lines, a host reads them.
    "_format": ("format_record", "level_word"),
    "_parse": ("LogLine", "StderrParser", "level_name", "readable"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
