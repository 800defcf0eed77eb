"""How long a Unix socket's path may be."""

from __future__ import annotations

import sys

# What fits into sockaddr_un beside the final NUL.
LONGEST_PATH = 107 if sys.platform.startswith("linux") else 103
