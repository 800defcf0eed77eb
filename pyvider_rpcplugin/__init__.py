"""Plugins in processes of their own, called over gRPC, on asyncio and on trio."""

from __future__ import annotations

__version__ = "1.0.0.dev0"
