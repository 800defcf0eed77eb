"""The benchmark: this library beside other ways to call a process, in one interleaved run."""

from __future__ import annotations
