from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.exception import HandshakeError, SecurityError
from pyvider_rpcplugin.handshake import (
    HandshakeRecord,
    format_handshake_line,
    parse_handshake_line,
)
from pyvider_rpcplugin.handshake._line import is_handshake_attempt
from tests.handshake.lines import CERTIFICATE, certificate_of, der, near_lines, records

ENCODED = base64.b64encode(CERTIFICATE).decode().rstrip("=")


def refusal(line, kind=HandshakeError, **options):
    with pytest.raises(kind) as caught:
        parse_handshake_line(line, **{"versions": {1}} | options)
    error = caught.value
    assert "\n" not in error.message
    assert error.hint
    assert error.phase == "handshake"
    assert error.__context__ is None
    return error.message


# --- writing


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (HandshakeRecord(1, 5, "unix", "/tmp/p"), "1|5|unix|/tmp/p|grpc|\n"),
        (HandshakeRecord(1, 1, "tcp", "127.0.0.1:1234"), "1|1|tcp|127.0.0.1:1234|grpc|\n"),
        (HandshakeRecord(1, 1, "unix", "/p", multiplex=True), "1|1|unix|/p|grpc||true\n"),
        (HandshakeRecord(1, 1, "unix", "/p", multiplex=False), "1|1|unix|/p|grpc||false\n"),
        (
            HandshakeRecord(1, 1, "unix", "/p", certificate=CERTIFICATE),
            f"1|1|unix|/p|grpc|{ENCODED}\n",
        ),
    ],
)
def test_a_record_becomes_the_line_that_go_plugins_print(record, line):
    assert format_handshake_line(record) == line


@pytest.mark.parametrize("address", ["", "/a|b", "/a\nb", "/a\rb", "/a\0b"])
def test_an_address_that_would_break_the_line_is_refused(address):
    with pytest.raises(HandshakeError, match="address"):
        format_handshake_line(HandshakeRecord(1, 1, "unix", address))


@pytest.mark.parametrize(
    "certificate",
    [
        b"",
        b"not a certificate",
        CERTIFICATE[:-1],
        CERTIFICATE + b"x",
        certificate_of(b"", b"", b""),
        der(0x31, CERTIFICATE),
        der(0x30, b"s" * 60),
        der(0x30, der(0x30, b"s" * 60)),
        der(0x30, der(0x30, b"s" * 60) + der(0x30, b"") + der(0x04, b"")),
        der(0x30, der(0x30, b"s" * 60) + der(0x30, b"") + der(0x03, b"") + b"x"),
        b"\x30\x80" + b"s" * 60,
        b"\x30\x85" + b"s" * 60,
        b"\x30\x84\x00",
        b"\x30",
    ],
)
def test_what_is_not_shaped_like_a_certificate_is_neither_written_nor_read(certificate):
    with pytest.raises(SecurityError):
        format_handshake_line(HandshakeRecord(1, 1, "unix", "/p", certificate=certificate))
    encoded = base64.b64encode(certificate).decode().rstrip("=")
    if len(encoded) > 50:
        refusal(f"1|1|unix|/p|grpc|{encoded}", SecurityError)


# --- reading


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("1|1|tcp|127.0.0.1:1234|grpc", HandshakeRecord(1, 1, "tcp", "127.0.0.1:1234")),
        ("1|1|tcp|:1234|grpc", HandshakeRecord(1, 1, "tcp", ":1234")),
        ("1|1|tcp|[::1]:1|grpc|", HandshakeRecord(1, 1, "tcp", "[::1]:1")),
        ("1|1|unix|/tmp/p|grpc|", HandshakeRecord(1, 1, "unix", "/tmp/p")),
        ("  1|1|unix|/tmp/p|grpc|\r\n", HandshakeRecord(1, 1, "unix", "/tmp/p")),
        ("\ufeff1|1|unix|/tmp/p|grpc|", HandshakeRecord(1, 1, "unix", "/tmp/p")),
        (f"1|1|unix|/p|grpc|{'j' * 40}", HandshakeRecord(1, 1, "unix", "/p")),
        (f"1|1|unix|/p|grpc|{'=' * 50}", HandshakeRecord(1, 1, "unix", "/p")),
        (f"1|1|unix|/p|grpc|{ENCODED}", HandshakeRecord(1, 1, "unix", "/p", "grpc", CERTIFICATE)),
        ("1|1|unix|/p|grpc||T", HandshakeRecord(1, 1, "unix", "/p", multiplex=True)),
        ("1|1|unix|/p|grpc||FALSE", HandshakeRecord(1, 1, "unix", "/p", multiplex=False)),
        ("1|1|unix|/p|grpc||maybe", HandshakeRecord(1, 1, "unix", "/p")),
    ],
)
def test_a_right_line_is_understood(line, record):
    assert parse_handshake_line(line, versions={1}) == record
    assert is_handshake_attempt(line)


def test_fields_of_a_later_time_are_not_looked_at():
    line = "1|1|unix|/p|grpc||true|future|more"
    assert parse_handshake_line(line, versions=[1], multiplex_requested=True).multiplex is True


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1|1|unix|/tmp/p", "netrpc"),
        ("1|1|unix|/tmp/p|netrpc", "netrpc"),
        ("1|1|unix|/tmp/p||", "''"),
        ("lolinvalid", "unrecognized message from the plugin: 'lolinvalid'"),
        ("", "unrecognized message"),
        ("1|1|tcp", "unrecognized message from the plugin: '1|1|tcp'"),
        ("2|1|tcp|:1|grpc", "version 2 of the handshake, this host speaks version 1"),
        ("x|1|tcp|:1|grpc", "core version 'x'"),
        ("|1|tcp|:1|grpc", "core version ''"),
        ("1 |1|tcp|:1|grpc", "core version '1 '"),
        ("1|11|tcp|:1|grpc", "version 11 of the application's protocol, this host speaks 1"),
        ("1|a|tcp|:1|grpc", "protocol version 'a'"),
        ("1|1_0|tcp|:1|grpc", "protocol version '1_0'"),
        (f"1|{'1' * 5000}|tcp|:1|grpc", "protocol version"),
        ("1|1|udp|:1|grpc", "unknown address type 'udp'"),
        ("1|1|TCP|:1|grpc", "unknown address type 'TCP'"),
        ("1|1|tcp|:1|http", "'http'"),
        *[
            (f"1|1|tcp|{address}|grpc", "is not host:port")
            for address in ("", "localhost", ":", ":0", ":65536", ":x", "::1:1", ":٣", ":100000")
        ],
        ("1|1|unix||grpc", "socket path"),
        ("1|1|unix|/a\0b|grpc", "socket path"),
    ],
)
def test_a_wrong_line_says_what_is_wrong_with_it(line, said):
    assert said in refusal(line)


def test_a_long_line_makes_no_long_message():
    assert len(refusal("x" * 100_000)) < 300
    assert len(refusal("x|1|" + "y" * 100_000 + "|z")) < 600


def test_a_version_is_refused_by_a_host_without_any():
    assert "speaks none" in refusal("1|1|tcp|:1|grpc", versions=())


def test_a_network_that_the_host_does_not_want_is_refused():
    assert "accepts tcp" in refusal("1|1|unix|/p|grpc", networks=["tcp"])
    assert "accepts none" in refusal("1|1|unix|/p|grpc", networks=[])


@pytest.mark.parametrize(
    "field",
    [
        "j" * 60,
        "!" * 60,
        ENCODED + "=" * (-len(ENCODED) % 4 or 4),
        ENCODED[:-2],
        ENCODED + "AAAAA",
        ENCODED.replace("A", " ", 1),
        "-----BEGIN CERTIFICATE-----" + ENCODED,
    ],
)
def test_a_bad_certificate_is_an_error_about_security(field):
    message = refusal(f"1|1|tcp|:1|grpc|{field}", SecurityError)
    assert "certificate" in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("", "cannot multiplex"),
        ("|", "cannot multiplex"),
        ("||false", "cannot multiplex"),
        ("||F", "cannot multiplex"),
        ("||maybe", "'maybe', is neither true nor false"),
        ("||", "'', is neither true nor false"),
        ("||yes", "'yes', is neither true nor false"),
    ],
)
def test_a_host_that_asked_for_multiplexing_gets_it_or_an_error(rest, said):
    line = f"1|1|tcp|:1|grpc{rest}"
    assert said in refusal(line, multiplex_requested=True)
    parse_handshake_line(line, versions={1})


# --- telling a line that is meant from one that is not


@pytest.mark.parametrize(
    "line",
    [
        "1|1|unix|/tmp/p",
        "1|1|unix|/tmp/p||",
        "2|1|tcp|:1|grpc",
        "x|1|tcp|:1|grpc",
        "1|a|tcp|:1|grpc",
        "1|1|udp|:1|grpc",
        "1|1|tcp|:1|http",
        "1|1|npipe|x|http",
        "1|1|",
        "1|1|tcp",
        " 1 | 1 | unix | /tmp/p | grpc ",
        "\ufeff1|1|UNIX|/p|GRPC",
    ],
)
def test_a_line_with_most_marks_of_a_handshake_is_meant_as_one(line):
    assert is_handshake_attempt(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "lolinvalid",
        "banner",
        "a | b",
        "1|1",
        "INFO|2024|tcp|listening",
        "2024-01-01|INFO|starting",
        "| 1 | 1 | tcp |",
        "1|2|3|4",
        "3|1|/usr/lib|x",
        '{"a": "1|1|unix"}',
        "unix|tcp|grpc",
        "a|b|tcp|:1|grpc|",
    ],
)
def test_other_lines_are_noise(line):
    assert not is_handshake_attempt(line)


# --- whatever comes


def record_or_error(line, **options):
    try:
        return parse_handshake_line(line, **options)
    except (HandshakeError, SecurityError) as error:
        return error


@given(records)
def test_a_line_says_what_the_record_said(record):
    line = format_handshake_line(record)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert is_handshake_attempt(line)
    assert parse_handshake_line(line, versions={record.app_version}) == record


@given(st.text() | near_lines, st.booleans())
def test_any_text_is_a_record_or_one_of_the_documented_errors(line, multiplex):
    result = record_or_error(line, versions={1}, multiplex_requested=multiplex)
    if isinstance(result, HandshakeRecord):
        assert is_handshake_attempt(line)
        assert parse_handshake_line(format_handshake_line(result), versions={1}) == result
    else:
        assert "\n" not in result.message
        assert str(result).count("\n") <= 4


@given(records, st.data())
def test_a_damaged_line_is_a_record_or_one_of_the_documented_errors(record, data):
    line = format_handshake_line(record)
    at = data.draw(st.integers(0, len(line)))
    damaged = line[:at] + data.draw(st.text(max_size=3)) + line[at + data.draw(st.integers(0, 3)) :]
    result = record_or_error(damaged, versions={record.app_version})
    assert isinstance(result, HandshakeRecord) or "\n" not in result.message
