"""What each form of client asks of the echo service, and what every form of service answers.

A form of client is a function that takes a started `RPCPluginClient` and returns what it saw in
these words, so that one expectation serves all of them.
"""

from __future__ import annotations

TEXTS = ["one", "two", "three"]
REFUSED = "refuse"
REASON = "not today ☺"

EXPECTED = {
    "unary": ("hello", b"\x00\xff", 0),
    "server stream": [("hello", 0), ("hello", 1), ("hello", 2)],
    "client stream": ("onetwothree", 3),
    "bidi": [("one", 0), ("two", 1), ("three", 2)],
    "refused": ("FAILED_PRECONDITION", REASON),
    "late": "DEADLINE_EXCEEDED",
}
