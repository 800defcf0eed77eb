"""The version: what the build reads, and what requests name."""

from __future__ import annotations

__version__ = "1.0.0.dev0"
"""The version of the package."""
