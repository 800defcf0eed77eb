"""Inputs to begin with: what honest peers send, in the form that each target takes."""

from __future__ import annotations

import gzip
import random

import msgspec

from pyvider_rpcplugin.crypto import Certificate
from pyvider_rpcplugin.crypto._template import make_certificate
from pyvider_rpcplugin.http2 import HeaderEncoder
from tests.http2.peer import REQUEST_BLOCK, RESPONSE_BLOCK, TRAILERS_BLOCK

# So that runs can be compared.
_chance = random.Random(9113)

pack = msgspec.msgpack.encode

_BLOCKS = b"".join(
    bytes([len(block)]) + block for block in (REQUEST_BLOCK, RESPONSE_BLOCK, TRAILERS_BLOCK)
)
_LOG = b"""\
{"@level":"info","@message":"up","@timestamp":"2026-01-02T03:04:05.678901+01:00","n":1,"name":"x"}
[WARN] disk is full
Traceback (most recent call last):
  File "plugin.py", line 1, in <module>
ValueError: no
plain text
{"@level":"warn","@message":"m","getMessage":1,"__class__":2,"args":[3],"stacktrace":"at x"}
panic: runtime error
"""
_LINE = b"some noise\n1|1|unix|/tmp/plugin.sock|grpc|%s|true\nmore"
_REATTACH = (
    b'{"p":{"Protocol":"grpc","ProtocolVersion":6,"Pid":1,"Test":true,'
    b'"Addr":{"Network":"unix","String":"/tmp/x"}}}'
)


def _message(content: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(content).to_bytes(4, "big") + content


def _frames() -> list[bytes]:
    """Some hundred random sequences: which bytes are frames is for the target's reader to say."""
    return [_chance.randbytes(_chance.randrange(4, 120)) for _ in range(300)]


def seeds() -> dict[str, list[bytes]]:
    """The seeds of each target."""
    certificate: Certificate = make_certificate(now=1_700_000_000).certificate
    der, pem = certificate.der, certificate.pem.encode()
    encoder = HeaderEncoder()
    fields = encoder.encode([("grpc-timeout", "1S"), ("x-bin", "AAEC"), ("grpc-status", "5")])
    return {
        "http2": _frames(),
        "http2_raw": [
            b"\x04\0\0\4\x08\0\0\0\0\0\0\0\0\1",
            b"\x04\0\0" + bytes([len(REQUEST_BLOCK)]) + b"\1\4\0\0\0\1" + REQUEST_BLOCK,
            b"\x0cPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
        "differential": _frames(),
        "hpack": [_BLOCKS, bytes([len(fields)]) + fields],
        "metadata": [b"\0\x015\1\x05%41bc\2\x04AAEC\3\x021S\4\x04gzip\5\x0didentity,gzip"],
        "messages": [
            b"\0\x03" + _message(b"abc") * 3,
            b"\1\x02" + _message(gzip.compress(bytes(1000)), 1),
        ],
        "broker": [
            b"\1\x12\x08\x05\x12\x04unix\x1a\x06/tmp/x\0",
            b"\1\x0a\x08\1\x22\4\x08\1\x10\1",
        ],
        "yamux": _frames(),
        "handshake": [b"\x05" + _LINE % b"", b"\xff" + _REATTACH],
        "logs": [b"\x07" + _LOG, b"\xff" + _LOG.replace(b"Traceback", b"  + Exception Group")],
        "messagepack": [
            b"\0" + pack({"a": 1, "text": "x", "data": b"y", "things": [{"name": "n"}]}),
            b"\0" + pack({"a": 1, "text": "x", "table": {"k": (1.5, True)}, "when": None}),
            b"\1"
            + pack([{"name": "n", "sizes": [1]}, {"name": "m", "inner": {"x": {"name": ""}}}]),
            b"\2" + pack({"name": "n", "sizes": [1, 2**40]}),
            b"\3"
            + pack({"names": ["Refusal"], "args": [1], "fields": {"code": 3}, "traceback": "t"}),
            b"\3" + pack({"names": ["OSError"], "args": [2, "no", "file"]}),
        ],
        "certificates": [b"\0" + der, b"\1" + pem, b"\2" + pem],
    }
