"""The protobuf wire format, as far as the small messages of this package need it.

The real protobuf package takes tens of milliseconds to import, and a plugin whose own services do
not use it should not pay that for a message without fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Encode a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """Encode a number as field `number`; zero, the default, takes no space."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode bytes (a string, a message) as field `number`, empty ones too."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Take a message apart into the numbers and values of its fields, unknown ones included.

    Raises:
        ValueError: These bytes are no message.
    """
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            msg = "there is no field 0"
            raise ValueError(msg)
        if kind == VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = _read_varint(data, position)
        elif kind == FIXED64:
            size = 8
        elif kind == FIXED32:
            size = 4
        else:
            msg = f"field {number} has the unknown wire type {kind}"
            raise ValueError(msg)
        end = position + size
        if end > len(data):
            msg = "the message is cut off"
            raise ValueError(msg)
        yield number, data[position:end]
        position = end


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    msg = "a number is cut off or too long"
    raise ValueError(msg)
