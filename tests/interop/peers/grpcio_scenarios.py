"""The scenarios of the grpcio client; the tests must not load grpcio to know them."""

from __future__ import annotations

from tests.interop.scenarios import SCENARIOS

NAMES = (
    *SCENARIOS,
    "client_compressed_unary",
    "client_compressed_streaming",
    "server_compressed_unary",
    "server_compressed_streaming",
)
