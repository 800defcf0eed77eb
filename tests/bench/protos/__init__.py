"""The benchmark's service, and the modules generated from it."""

from __future__ import annotations
