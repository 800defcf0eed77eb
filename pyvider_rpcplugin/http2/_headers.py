"""Header blocks by HPACK (RFC 7541), and what a header section may hold (RFC 9113, section 8).

Sans-I/O: no awaits here.

Most calls on a connection carry the same few header blocks. We write ours without the dynamic
table, so that equal fields are always equal bytes and can be kept encoded. What we read is kept
decoded for as long as the decoding table stays as it was: an equal block then means equal fields.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from ._errors import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Field = tuple[str, str]
"""A header field: its name in lower case, and its value."""

# What the caches hold at most: this many blocks, of that many octets each, encoded and decoded
# (one octet of a block can stand for a field of thousands).
_CACHED_BLOCKS = 256
_CACHED_BLOCK_SIZE = 1024
_CACHED_TEXT_SIZE = 4096

# A list that is over the bound is the fault of its stream alone as long as it can be decoded to its
# end: the decoding table stays in step. Up to so many times the bound it is.
_TOLERATED = 4

_SIZE_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f])+")
_LONGEST_SIZE_UPDATES = 16
_EMPTY_TABLE_UPDATE = b"\x20"

_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(r"[\x00\r\n]|^[ \t]|[ \t]$")
_CONNECTION_SPECIFIC = frozenset(
    ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")
)
_REQUEST_PSEUDO = frozenset((":method", ":scheme", ":path", ":authority"))
_RESPONSE_PSEUDO = frozenset((":status",))


# At DEBUG hpack logs each field of each call, credentials among them: ten records a call that nobody
# asked for who looks at all of a program's records. Who wants them sets that logger's level.
if logging.getLogger("hpack").level == logging.NOTSET:
    logging.getLogger("hpack").setLevel(logging.INFO)


class HeaderBlock:
    """One decoded header section.

    Blocks are shared between messages with equal bytes, so nobody may change one.

    Attributes:
        fields: All regular fields in order.
        pseudo: The pseudo-header fields.
        request_fault: Why this may not be a request's header section; None if it may.
        response_fault: Why this may not be a response's.
        trailer_fault: Why this may not be a trailer section.
        fault_code: What the stream of a section that may not be is reset with.
        content_length: The value of content-length, None without one.
        parsed: Room for what the layer above makes of the block, kept with it.
    """

    __slots__ = (
        "content_length",
        "fault_code",
        "fields",
        "parsed",
        "pseudo",
        "request_fault",
        "response_fault",
        "trailer_fault",
    )

    def __init__(self, pairs: Iterable[Field], *, oversized: str | None = None) -> None:
        self.pseudo: dict[str, str] = {}
        fields: list[Field] = []
        self.fault_code: ErrorCode = ErrorCode.PROTOCOL_ERROR
        if oversized is not None:
            self.fault_code = ErrorCode.ENHANCE_YOUR_CALM
        fault = oversized or _fill(pairs, self.pseudo, fields)
        self.fields: tuple[Field, ...] = tuple(fields)
        self.content_length: int | None = None
        if fault is None:
            fault = self._read_content_length()
        self.request_fault: str | None = fault or _request_fault(self.pseudo)
        self.response_fault: str | None = fault or _response_fault(self.pseudo)
        self.trailer_fault: str | None = fault or (
            "pseudo-header fields in a trailer section" if self.pseudo else None
        )
        self.parsed: object = None

    def _read_content_length(self) -> str | None:
        lengths = {value for name, value in self.fields if name == "content-length"}
        if not lengths:
            return None
        value = lengths.pop()
        if lengths or not value.isdecimal() or len(value) > 18:
            return "an invalid content-length"
        self.content_length = int(value)
        return None


def _fill(pairs: Iterable[Field], pseudo: dict[str, str], fields: list[Field]) -> str | None:
    """Sort `pairs` into the two; return what is wrong with them (section 8.2)."""
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            return f"an invalid field name: {name[:40]!r}"
        if _BAD_VALUE.search(value):
            return f"an invalid value of the field {name[:40]!r}"
        if name[0] == ":":
            if fields:
                return "a pseudo-header field after a regular field"
            if name in pseudo:
                return f"the pseudo-header field {name!r} twice"
            pseudo[name] = value
        elif name in _CONNECTION_SPECIFIC:
            return f"the connection-specific field {name!r}"
        elif name == "te" and value != "trailers":
            return "a te field other than trailers"
        else:
            fields.append((name, value))
    return None


def _request_fault(pseudo: dict[str, str]) -> str | None:
    if not pseudo.keys() <= _REQUEST_PSEUDO:
        return "pseudo-header fields that are none of a request"
    method = pseudo.get(":method")
    if method is None:
        return "a request without :method"
    if method == "CONNECT":
        return None if pseudo.keys() == {":method", ":authority"} else "a malformed CONNECT request"
    if not pseudo.get(":scheme") or not pseudo.get(":path"):
        return "a request without :scheme or :path"
    return None


def _response_fault(pseudo: dict[str, str]) -> str | None:
    status = pseudo.get(":status", "")
    if pseudo.keys() != _RESPONSE_PSEUDO or not (len(status) == 3 and status.isdecimal()):
        return "a response without a valid :status alone"
    if status == "101":
        return "a switch of protocols, which HTTP/2 does not have"
    return None


class _WatchedTable(HeaderTable):
    """The decoding table, which counts what is added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.added = 0

    def add(self, name: bytes, value: bytes) -> None:
        if self.maxsize:  # An empty table that must stay empty does not change.
            self.added += 1
            super().add(name, value)


class HeaderDecoder:
    """Decodes the header blocks of one connection, each in the order of its arrival.

    Args:
        max_list_size: The largest header list that is accepted, as RFC 9113 counts it (32 octets
            a field on top of names and values).
        max_fields: How many fields it may have.
    """

    __slots__ = ("_cache", "_decoder", "_max_fields", "_max_list_size", "_table")

    def __init__(self, max_list_size: int, max_fields: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_list_size * _TOLERATED)
        self._max_list_size = max_list_size
        self._table = _WatchedTable()
        self._decoder.header_table = self._table
        self._max_fields = max_fields
        self._cache: dict[bytes, HeaderBlock] = {}

    def decode(self, block: bytes) -> HeaderBlock:
        """Decode one complete block.

        A list that exceeds a bound has the `fault_code` ENHANCE_YOUR_CALM, and no fields.

        Raises:
            ConnectionFault: It cannot be decoded, or is so far over a bound that it is not worth
                it. The decoding table is then out of step with the peer, so there is no way on
                (RFC 9113, section 4.3).
        """
        cached = self._cache.get(block)
        if cached is not None:
            return cached
        updates = _SIZE_UPDATES.match(block)
        if updates is not None and updates.end() > _LONGEST_SIZE_UPDATES:
            # A block needs two at most (RFC 7541, section 4.2), and could hold tens of thousands.
            reason = f"{updates.end()} octets of updates of the header table's size"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason)
        added = self._table.added
        try:
            pairs = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from None
        except (HPACKError, IndexError, ValueError) as error:
            # The error may quote the whole block.
            reason = f"a header block that cannot be decoded: {str(error)[:100]}"
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, reason) from None
        fields = [(_text(name), _text(value)) for name, value in pairs]
        oversized = self._oversized(fields)
        if oversized is not None:
            fields = []
        decoded = HeaderBlock(fields, oversized=oversized)
        if updates is not None or self._table.added != added:
            self._cache.clear()
        elif (
            len(block) <= _CACHED_BLOCK_SIZE
            and sum([len(name) + len(value) for name, value in fields]) <= _CACHED_TEXT_SIZE
        ):
            if len(self._cache) >= _CACHED_BLOCKS:
                self._cache.clear()
            self._cache[block] = decoded
        return decoded

    def _oversized(self, fields: Sequence[Field]) -> str | None:
        """Say by how much a header list is too large; None if it is not."""
        if len(fields) > self._max_fields:
            return f"{len(fields)} header fields, {self._max_fields} are allowed"
        size = 32 * len(fields) + sum([len(name) + len(value) for name, value in fields])
        if size > self._max_list_size:
            return f"a header list of {size} octets, {self._max_list_size} are allowed"
        return None


def _text(octets: bytes | str) -> str:
    # ISO-8859-1 maps every octet to one character: nothing is lost, and a field with octets
    # beyond ASCII, which RFC 9110 calls opaque, is no reason to end a connection.
    return octets if isinstance(octets, str) else octets.decode("latin-1")


class HeaderEncoder:
    """Encodes header blocks without the dynamic table.

    Such blocks depend on nothing that was sent before, so they may be kept, joined (regular
    fields behind any other block) and sent on any connection, once `preamble` has been sent there.
    """

    __slots__ = ("_encoder",)

    preamble = _EMPTY_TABLE_UPDATE
    """Must begin the first block of a connection: it tells the peer that the table is empty."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._encoder.header_table_size = 0
        self._encoder.encode(())  # takes the size update out; `preamble` stands for it

    def encode(self, fields: Iterable[Field], *, huffman: bool = True) -> bytes:
        """The block for `fields`.

        Args:
            fields: Names in lower case; pseudo-header fields first.
            huffman: Whether to compress. It saves bytes and costs time: worth it for what is kept
                encoded, not for what is sent once.
        """
        encoded = ((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields)
        return self._encoder.encode(encoded, huffman=huffman)
