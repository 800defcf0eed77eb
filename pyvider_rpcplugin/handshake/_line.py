"""The handshake line: the one line by which a plugin says where it listens.

Its fields are separated by ``|``, and nothing is escaped::

    core version | application's version | network | address | protocol | certificate | multiplex

The certificate is the DER of the plugin's own in base64 without padding, or empty. The last field
is there only if the host asked for it: old hosts stumble over it.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

from pyvider_rpcplugin.exception import HandshakeError, SecurityError
from pyvider_rpcplugin.handshake._versions import format_versions

if TYPE_CHECKING:
    from collections.abc import Collection

CORE_VERSION = 1
"""The version of go-plugin's own protocol: the first field of the line."""

NETWORKS: tuple[Literal["unix", "tcp"], ...] = ("unix", "tcp")
"""What the third field of the line may be."""

_PROTOCOLS = frozenset({"grpc", "netrpc"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+")
# These, and no others, are what Go's parser of booleans takes.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
# Plugins of old put other things into the sixth field. A certificate is never this short.
_LONGEST_JUNK = 50


class HandshakeRecord(msgspec.Struct, frozen=True):
    """What a handshake line says.

    Attributes:
        core_version: Version of the handshake itself.
        app_version: The version of the application's protocol that the plugin chose.
        network: The kind of socket.
        address: The socket's path, or host and port.
        protocol: What is spoken on it.
        certificate: The plugin's certificate in DER; ``None`` without AutoMTLS.
        multiplex: Whether the plugin can use one connection for all; ``None`` where it did not
            say.
    """

    core_version: int
    app_version: int
    network: Literal["unix", "tcp"]
    address: str
    protocol: str = "grpc"
    certificate: bytes | None = None
    multiplex: bool | None = None


def format_handshake_line(record: HandshakeRecord) -> str:
    """The line to print, with its newline.

    Raises:
        HandshakeError: The address cannot be written into a line.
        SecurityError: The certificate is none.
    """
    address = record.address
    if not address or any(mark in address for mark in "|\n\r\0"):
        message = f"the address {_show(address)} cannot be part of a handshake line"
        raise HandshakeError(
            message, "Take a path without the characters | and newline.", phase="handshake"
        )
    encoded = ""
    if record.certificate is not None:
        if not _is_shaped_like_certificate(record.certificate):
            raise SecurityError(
                "the plugin's own certificate is not the DER of one", phase="handshake"
            )
        encoded = binascii.b2a_base64(record.certificate, newline=False).decode().rstrip("=")
    fields = [
        str(record.core_version),
        str(record.app_version),
        record.network,
        address,
        record.protocol,
        encoded,
    ]
    if record.multiplex is not None:
        fields.append("true" if record.multiplex else "false")
    return "|".join(fields) + "\n"


def is_handshake_attempt(line: str) -> bool:
    """Whether a line is meant as a handshake line, be it right or wrong.

    A plugin's output may hold other lines first, and those have to be told from a line that is
    meant but wrong, whose error must be reported and not waited past. Two version numbers, a known
    network and a known protocol are the marks: a line that is meant has at least three of the
    four. A line with both numbers and then a word, or nothing, counts too: its network is unknown
    or it was cut short.
    """
    fields = [field.strip() for field in _trim(line).split("|")]
    if len(fields) < 3:
        return False
    numbers = [_INTEGER.fullmatch(field) is not None for field in fields[:2]]
    network = fields[2].lower() in NETWORKS
    protocol = len(fields) > 4 and fields[4].lower() in _PROTOCOLS
    if sum(numbers) + network + protocol >= 3:
        return True
    return all(numbers) and (not fields[2] or _WORD.fullmatch(fields[2]) is not None)


def parse_handshake_line(
    line: str,
    *,
    versions: Collection[int],
    multiplex_requested: bool = False,
    networks: Collection[str] = NETWORKS,
) -> HandshakeRecord:
    """Read a plugin's handshake line.

    Args:
        line: The line; white space around it does not matter.
        versions: The versions of the application's protocol that this host speaks.
        multiplex_requested: Whether the host asked for one connection for all: then the plugin
            has to be able to.
        networks: The kinds of socket that the host accepts.

    Raises:
        HandshakeError: The line is not one, or says what this host cannot accept.
        SecurityError: Its certificate is none.
    """
    text = _trim(line)
    fields = text.split("|")
    if len(fields) < 4:
        _fail(f"unrecognized message from the plugin: {_show(text)}", EXPECTED)
    core_version = _integer(fields[0], "core version", text)
    if core_version != CORE_VERSION:
        _fail(
            f"the plugin speaks version {core_version} of the handshake, this host speaks version "
            f"{CORE_VERSION}",
            "One of them has to be built again with a matching plugin library.",
        )
    app_version = _integer(fields[1], "application's protocol version", text)
    if app_version not in versions:
        _fail(
            f"the plugin serves version {app_version} of the application's protocol, this host "
            f"speaks {format_versions(versions) or 'none'}",
            "Update the older of the two, or add the version to PLUGIN_PROTOCOL_VERSIONS.",
        )
    network = _check_network(fields[2], fields[3], networks, text)
    protocol = fields[4] if len(fields) > 4 else "netrpc"
    if protocol == "netrpc":
        says = "speaks netrpc" if len(fields) > 4 else "names no protocol, which means netrpc"
        _fail(
            f"the plugin {says}: this host speaks grpc",
            "A Go plugin serves grpc when its configuration names a gRPC server; other plugins "
            "have to say grpc in the fifth field.",
        )
    if protocol != "grpc":
        _fail(f"the plugin speaks {_show(protocol)}: this host speaks grpc", EXPECTED)
    certificate = _decode_certificate(fields[5]) if len(fields) > 5 else None
    multiplex = _BOOLEANS.get(fields[6]) if len(fields) > 6 else None
    if multiplex_requested and not multiplex:
        if len(fields) > 6 and fields[6] not in _BOOLEANS:
            _fail(
                f"the plugin's answer on multiplexing, {_show(fields[6])}, is neither true nor "
                "false",
                EXPECTED,
            )
        _fail(
            "the plugin cannot multiplex its connections, and this host asked for it",
            "Update the plugin, or do without PLUGIN_MULTIPLEX_GRPC.",
        )
    return HandshakeRecord(
        core_version, app_version, network, fields[3], protocol, certificate, multiplex
    )


# What a reader of an error may need to see.
EXPECTED = "A plugin's line looks like this: 1|1|unix|/path/of/its/socket|grpc|"


def _fail(message: str, hint: str) -> NoReturn:
    raise HandshakeError(message, hint, phase="handshake")


def _trim(line: str) -> str:
    # Some tools on some systems put a byte order mark before the first output.
    return line.strip().removeprefix("\ufeff")


def _show(text: str) -> str:
    """Text of the plugin's for a message: one line, and not long."""
    shown = repr(text)
    return shown if len(shown) <= 160 else f"{shown[:157]}..."


def _integer(field: str, what: str, line: str) -> int:
    if not _INTEGER.fullmatch(field):
        hint = EXPECTED
        before = field.rstrip("0123456789")
        if before != field:
            hint = f"The plugin printed {_show(before)} just before it, without the end of a line."
        _fail(f"the {what} {_show(field)} in the handshake line {_show(line)} is no number", hint)
    return int(field)


def _check_network(
    network: str, address: str, accepted: Collection[str], line: str
) -> Literal["unix", "tcp"]:
    if network not in NETWORKS:
        _fail(
            f"unknown address type {_show(network)} in the handshake line {_show(line)}", EXPECTED
        )
    if network not in accepted:
        _fail(
            f"the plugin listens on a {network} socket, this host accepts "
            f"{', '.join(accepted) or 'none'}",
            "PLUGIN_CLIENT_TRANSPORTS says what a host accepts.",
        )
    if network == "tcp":
        host, colon, port = address.rpartition(":")
        bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
        if (
            not colon
            or bare_ipv6
            or not re.fullmatch("[0-9]{1,5}", port)
            or not 0 < int(port) < 65536
        ):
            _fail(f"the plugin's tcp address {_show(address)} is not host:port", EXPECTED)
    elif not address or "\0" in address:
        _fail(f"the plugin's socket path {_show(address)} is not one", EXPECTED)
    return network


def _decode_certificate(field: str) -> bytes | None:
    if len(field) <= _LONGEST_JUNK:
        return None
    # One character beyond full groups of four holds less than a byte.
    if _BASE64.fullmatch(field) and len(field) % 4 != 1:
        der = binascii.a2b_base64(field + "=" * (-len(field) % 4))
        if _is_shaped_like_certificate(der):
            return der
    message = f"the certificate in the plugin's handshake line is none: {_show(field[:60] + '...')}"
    raise SecurityError(
        message,
        "The sixth field is the DER of a certificate in base64 without padding.",
        phase="handshake",
    )


def _is_shaped_like_certificate(der: bytes) -> bool:
    """Whether this is the outer shape of a certificate: what it says is for TLS to judge.

    A look inside would load a library that takes longer to import than the plugin to start.
    """
    whole = _der_element(der, 0)
    if whole is None or whole[0] != 0x30 or whole[2] != len(der):
        return False
    _, at, end = whole
    # The signed part, the signature's algorithm, the signature.
    for tag in (0x30, 0x30, 0x03):
        element = _der_element(der, at)
        if element is None or element[0] != tag:
            return False
        at = element[2]
    return at == end and len(der) * 4 > _LONGEST_JUNK * 3


def _der_element(data: bytes, at: int) -> tuple[int, int, int] | None:
    """The tag of the element at an index, where its content begins, and where it ends."""
    if at + 2 > len(data):
        return None
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        # No count is the indefinite form, which DER does not know; four bytes are over 4 GiB.
        if not 1 <= count <= 4 or begin + count > len(data):
            return None
        length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    return (data[at], begin, begin + length) if begin + length <= len(data) else None
