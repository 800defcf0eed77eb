"""What a fuzzer's bytes stand for: choices, numbers, and frames with a name."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from hyperframe.frame import PriorityFrame, SettingsFrame

from pyvider_rpcplugin.http2._headers import _SIZE_UPDATES
from tests.http2 import test_differential
from tests.http2.test_differential import BLOCKS, ODD, STREAMS, raw

T = TypeVar("T")

# Making a frame takes longer than reading it.
headers = functools.cache(test_differential.headers)
data = functools.cache(test_differential.data)


@functools.cache
def priority(stream_id: int, on: int) -> bytes:
    frame = PriorityFrame(stream_id, depends_on=on, stream_weight=1)
    return frame.serialize()


_BLOCKS = list(BLOCKS)
_WAYS = ("plain", "padded", "priority", "continued")
_SIZES = (0, 1, 3, 5, 6, 900, 1001)
_INCREMENTS = (0, 1, 5000, 2**31 - 1)
_VALUES = (0, 1, 2, 100, 16_384, 70_000, 2**31 - 1, 2**31)
_KINDS = {
    0: "DATA",
    1: "HEADERS (raw)",
    2: "PRIORITY",
    3: "RST_STREAM",
    4: "SETTINGS",
    5: "PUSH_PROMISE",
    6: "PING",
    7: "GOAWAY",
    8: "WINDOW_UPDATE",
    9: "CONTINUATION",
}


class Reader:
    """Takes a fuzzer's bytes one after the other; zeros where there are no more."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._octets)

    def number(self) -> int:
        at = self._at
        self._at = at + 1
        return self._octets[at] if at < len(self._octets) else 0

    def choice(self, options: Sequence[T]) -> T:
        return options[self.number() % len(options)]

    def take(self, size: int) -> bytes:
        at = self._at
        self._at = at + size
        return self._octets[at : at + size]

    def rest(self) -> bytes:
        return self.take(len(self._octets))


Action = tuple[str, int] | tuple[str, int, bytes]


def actions(reader: Reader, *, most: int = 1000) -> Iterator[Action]:
    """What both sides do: a frame's label, stream and bytes; or what our side's owner does."""
    count = 0
    while reader.more and count < most:
        count += 1
        what = reader.number() % 16
        if what >= 13:
            yield reader.choice(("respond", "end", "reset", "send")), reader.choice((1, 3, 5))
            continue
        stream_id = reader.choice(STREAMS)
        yield _frame(what, stream_id, reader)


def _frame(what: int, stream_id: int, reader: Reader) -> Any:
    if what < 4:
        name, how, end = reader.choice(_BLOCKS), reader.choice(_WAYS), reader.number() & 1
        return f"HEADERS ({name})", stream_id or 1, headers(name, stream_id, bool(end), how)
    if what < 6:
        padding = (None, None, 0, 50)[reader.number() % 4]
        content = data(stream_id, reader.choice(_SIZES), padding, bool(reader.number() & 1))
        return "DATA", stream_id or 1, content
    if what == 6:
        code = reader.choice((0, 7, 8, 99))
        return "RST_STREAM", stream_id, raw(3, 0, stream_id, code.to_bytes(4, "big"))
    if what == 7:
        increment = reader.choice(_INCREMENTS)
        label = "WINDOW_UPDATE" if increment else "WINDOW_UPDATE of 0"
        return label, stream_id, raw(8, 0, stream_id, increment.to_bytes(4, "big"))
    if what == 8:
        on = reader.choice(STREAMS)
        label = "PRIORITY on itself" if (stream_id or 1) == on else "PRIORITY"
        return label, stream_id or 1, priority(stream_id or 1, on)
    if what == 9:
        values = {1 + reader.number() % 6: reader.choice(_VALUES) for _ in range(stream_id % 3)}
        return "SETTINGS", 0, SettingsFrame(0, settings=values).serialize()
    if what == 10:
        return reader.choice(ODD)
    kind = 1 if what == 11 else reader.number() % len(_KINDS)
    flags = reader.number()
    if kind in {1, 5}:
        # Half a block is for `http2_raw`: here each frame is to be judged by itself. Padding and
        # priorities come above.
        flags = flags & ~0x28 | 4
    payload = reader.take(reader.number())
    if kind == 8 and payload:
        # The first bit means nothing; `h2` refuses it.
        payload = bytes([payload[0] & 0x7F]) + payload[1:]
    if kind == 7:
        # `h2` reads nothing behind a GOAWAY that is right: a test of its own knows of that.
        payload = payload[:7]
    return _label(kind, stream_id, payload), stream_id, raw(kind, flags, stream_id, payload)


def _label(kind: int, stream_id: int, payload: bytes) -> str:
    """What a frame is called where two implementations are compared."""
    name = _KINDS[kind]
    last_31_bits = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
    if name == "WINDOW_UPDATE" and len(payload) == 4 and not last_31_bits:
        return f"{name} of 0"
    if name == "PRIORITY":
        if len(payload) != 5:
            return f"{name} of {len(payload)} octets"
        if last_31_bits == stream_id:
            return f"{name} on itself"
    if kind == 1 and (updates := _SIZE_UPDATES.match(payload)) and updates.end() > 16:
        return "HEADERS (updates)"
    return name
