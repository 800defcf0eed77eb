"""Handshake lines for the tests: what is right, what is wrong, and what is neither."""

from __future__ import annotations

from hypothesis import strategies as st

from pyvider_rpcplugin.handshake import HandshakeRecord


def der(tag: int, content: bytes) -> bytes:
    """One element of DER, written independently of the code that reads it."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def certificate_of(signed: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """What has the outer shape of a certificate."""
    return der(0x30, der(0x30, signed) + der(0x30, algorithm) + der(0x03, signature))


CERTIFICATE = certificate_of(b"s" * 300, b"a" * 10, b"x" * 70)

certificates = st.builds(
    certificate_of,
    st.binary(min_size=40, max_size=700),
    st.binary(max_size=20),
    st.binary(max_size=150),
)
addresses = st.one_of(
    st.tuples(
        st.just("unix"),
        st.text(st.characters(exclude_characters="|\n\r\0"), min_size=1),
    ),
    st.tuples(
        st.just("tcp"),
        st.builds(
            "{}:{}".format,
            st.sampled_from(["", "127.0.0.1", "localhost", "[::1]"]),
            st.integers(1, 65535),
        ),
    ),
)
records = st.builds(
    lambda version, at, certificate, multiplex: HandshakeRecord(
        1, version, at[0], at[1], "grpc", certificate, multiplex
    ),
    st.integers(0, 2**31),
    addresses,
    st.none() | certificates,
    st.sampled_from([None, True, False]),
)
# Text that looks a good deal like a handshake line.
fields = st.sampled_from(
    [
        "1",
        "2",
        "x",
        "",
        "unix",
        "tcp",
        "udp",
        ":1",
        "/p",
        "grpc",
        "netrpc",
        "http",
        "true",
        "j" * 60,
    ]
) | st.text(max_size=60)
near_lines = st.lists(fields, max_size=9).map("|".join)
