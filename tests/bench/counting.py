"""Counts what a process of the benchmark does: steps of its loop, and its system calls.

The interpreter tells of each call of a function that is written in C, so nothing of the measured
code is replaced. It takes time: rates are measured without. What such functions do by themselves is
not seen: asyncio's own look at the process id, which Python 3.11 takes with each running loop.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

# By the class and the name of the function. Both loops run each step of a task, and asyncio runs
# its other callbacks too, in a context; whoever waits for sockets polls.
KINDS = {
    ("Context", "run"): "steps",
    ("epoll", "poll"): "polls",
    ("epoll", "register"): "watches",
    ("epoll", "modify"): "watches",
    ("epoll", "unregister"): "watches",
    ("socket", "recv"): "receives",
    ("socket", "recv_into"): "receives",
    ("socket", "recvmsg"): "receives",
    ("socket", "send"): "sends",
    ("socket", "sendall"): "sends",
    ("socket", "sendmsg"): "sends",
}
VARIABLE = "BENCH_COUNTS"

counts = Counter[str]()


def start() -> None:
    """Count from here on what the calling thread does."""
    counts.clear()
    sys.setprofile(_called)


def _called(frame: Any, event: str, function: Any) -> None:
    if event == "c_call":
        owner = getattr(function, "__self__", None)
        kind = KINDS.get((type(owner).__name__, function.__name__))
        if kind is not None:
            counts[kind] += 1
