"""The targets, without loading what they fuzz: that is to be instrumented first."""

from __future__ import annotations

#: How the inputs are shared out: where more can go wrong, and where each costs less, there are more.
DEFAULT_SHARES = {
    "http2": 20,
    "http2_raw": 15,
    "differential": 3,
    "hpack": 10,
    "metadata": 10,
    "messages": 10,
    "broker": 5,
    "yamux": 15,
    "handshake": 5,
    "logs": 5,
    "certificates": 2,
}
