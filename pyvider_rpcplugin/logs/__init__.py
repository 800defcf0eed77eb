"""Log lines between plugin and host, as text; no I/O here.

A plugin writes each record of its log as one line of JSON, in hclog's form, to its standard error.
A host makes records of these again, and of what else comes there: lines with a level in front, the
panics of Go, the tracebacks of Python.
"""

from __future__ import annotations

from ._format import format_record, level_word
from ._parse import LogLine, StderrParser, readable

__all__ = ["LogLine", "StderrParser", "format_record", "level_word", "readable"]
