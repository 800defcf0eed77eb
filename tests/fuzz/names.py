"""The targets, without loading what they fuzz: that is to be instrumented first."""

from __future__ import annotations

#: How the inputs are shared out (where more can go wrong and where each costs less, there are
#: more), and how long each may be.
SHARES = {
    "http2": (8, 200),
    "http2_raw": (16, 300),
    "differential": (1, 100),
    "hpack": (25, 300),
    "metadata": (40, 300),
    "messages": (40, 300),
    "broker": (20, 300),
    "yamux": (20, 300),
    "handshake": (12, 300),
    "logs": (10, 1000),
    "messagepack": (20, 300),
    "certificates": (8, 2000),
}
