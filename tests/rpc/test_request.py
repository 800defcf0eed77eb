"""What a request's header section says."""

from __future__ import annotations

import pytest
from grpclib.const import Status

from pyvider_rpcplugin.http2 import HeaderBlock
from pyvider_rpcplugin.rpc._codecs import content_type, default_codec, subtype_of
from pyvider_rpcplugin.rpc._request import request_head


def block(**changes: str | None) -> HeaderBlock:
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/a.B/C",
        "content-type": "application/grpc",
    }
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    return HeaderBlock([(name, value) for name, value in fields.items() if value is not None])


def test_a_plain_request_says_what_it_is() -> None:
    head = request_head(block(user_agent="tester", key="value", k_bin="AAE"))
    assert head.refusal is None
    assert (head.path, head.subtype, head.user_agent) == ("/a.B/C", "proto", "tester")
    assert head.timeout is None
    assert head.encoding is None
    assert head.accepted_encodings == frozenset()
    assert dict(head.metadata()) == {"key": "value", "k-bin": b"\0\1"}


def test_the_metadata_of_each_call_is_its_own() -> None:
    head = request_head(block(key="value"))
    head.metadata().clear()
    assert dict(head.metadata()) == {"key": "value"}
    assert not request_head(block()).metadata()


def test_a_block_is_read_once() -> None:
    one = block()
    assert request_head(one) is request_head(one)


def test_timeout_and_encodings_are_read() -> None:
    head = request_head(
        block(grpc_timeout="5S", grpc_encoding="gzip", grpc_accept_encoding="identity, deflate")
    )
    assert head.timeout == 5
    assert head.encoding is not None
    assert head.encoding.name == "gzip"
    assert head.accepted_encodings == {"identity", "deflate"}
    assert request_head(block(grpc_encoding="identity")).encoding is None


@pytest.mark.parametrize(
    ("changes", "status", "http_status"),
    [
        ({":method": "GET"}, Status.UNIMPLEMENTED, "405"),
        ({"content_type": None}, Status.UNKNOWN, "415"),
        ({"content_type": "text/html"}, Status.UNKNOWN, "415"),
        ({"grpc_timeout": "soon"}, Status.INTERNAL, "200"),
        ({"grpc_encoding": "br"}, Status.UNIMPLEMENTED, "200"),
    ],
)
def test_what_is_wrong_is_refused(
    changes: dict[str, str | None], status: Status, http_status: str
) -> None:
    refusal = request_head(block(**changes)).refusal
    assert refusal is not None
    assert (refusal.status.status, refusal.http_status) == (status, http_status)


@pytest.mark.parametrize(
    ("value", "subtype"),
    [
        ("application/grpc", "proto"),
        ("application/grpc+proto", "proto"),
        ("application/grpc+json;charset=utf-8", "json"),
        ("APPLICATION/GRPC", "proto"),
        ("application/grpc+", "proto"),
        ("application/grpcweb", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_content_type_names_the_format(value: str, subtype: str | None) -> None:
    assert subtype_of(value) == subtype


def test_protobuf_is_named_the_short_way() -> None:
    assert content_type(default_codec()) == "application/grpc"
