"""The targets, without loading what they fuzz: that is to be instrumented first."""

from __future__ import annotations

#: How the inputs are shared out (where more can go wrong and where each costs less, there are
#: more), and how long each may be.
SHARES = {
    "http2": (10, 200),
    "http2_raw": (12, 300),
    "differential": (1, 100),
    "hpack": (12, 300),
    "metadata": (15, 300),
    "messages": (15, 300),
    "broker": (10, 300),
    "yamux": (12, 300),
    "handshake": (5, 300),
    "logs": (5, 1000),
    "certificates": (3, 2000),
}
