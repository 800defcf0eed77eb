"""How a call ended, in header fields."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpclib.const import Status
from grpclib.encoding.proto import ProtoStatusDetailsCodec
from grpclib.exceptions import GRPCError
from hypothesis import given, strategies as st

from pyvider_rpcplugin.exception import PluginExit
from pyvider_rpcplugin.http2 import ErrorCode
from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded
from pyvider_rpcplugin.rpc._status import (
    OK,
    CallStatus,
    status_fields,
    status_from_http,
    status_from_reset,
    status_from_trailers,
)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_every_status_survives_the_way(status: Status) -> None:
    fields = status_fields(CallStatus(status, "why"), None)
    assert status_from_trailers(tuple(fields), None) == CallStatus(status, "why")


@given(st.text() | st.text(" a"))
def test_every_message_survives_the_way(text: str) -> None:
    fields = status_fields(CallStatus(Status.ABORTED, text), None)
    assert all(value.isascii() and value.isprintable() for _, value in fields)
    assert all(value == value.strip() for _, value in fields)
    assert status_from_trailers(tuple(fields), None).message == text


def test_a_message_with_lone_surrogates_can_be_sent() -> None:
    fields = status_fields(CallStatus(Status.ABORTED, "no file \udcff"), None)
    assert status_from_trailers(tuple(fields), None).message == "no file ?"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", "plain"),
        ("50%", "50%"),
        ("%zz", "%zz"),
        ("%E2%82%AC", "€"),
        ("%e2%82", "�"),
        ("\xe2\x82\xac", "€"),  # not encoded at all, as some servers do
        ("\xff", "�"),
        ("", ""),
    ],
)
def test_broken_messages_are_read_as_far_as_they_go(raw: str, text: str) -> None:
    status = status_from_trailers((("grpc-status", "2"), ("grpc-message", raw)), None)
    assert status == CallStatus(Status.UNKNOWN, text)


@pytest.mark.parametrize("code", ["17", "-1", "x", "", "999999999999"])
def test_an_unknown_code_is_unknown_and_keeps_its_message(code: str) -> None:
    status = status_from_trailers((("grpc-status", code), ("grpc-message", "why")), None)
    assert status.status is Status.UNKNOWN
    assert status.message is not None
    assert "why" in status.message


def test_trailers_without_a_status_are_unknown() -> None:
    assert status_from_trailers((), None).status is Status.UNKNOWN


def test_details_survive_the_way() -> None:
    codec = ProtoStatusDetailsCodec()
    details = [ErrorInfo(reason="because", domain="test")]
    status = CallStatus(Status.ABORTED, "why", details)
    assert status_from_trailers(tuple(status_fields(status, codec)), codec) == status
    assert status_from_trailers(tuple(status_fields(status, codec)), None).details is None


def test_malformed_details_are_left_out(caplog: Any) -> None:
    fields = (("grpc-status", "10"), ("grpc-status-details-bin", "AAAA"))
    with caplog.at_level(logging.WARNING):
        status = status_from_trailers(fields, ProtoStatusDetailsCodec())
    assert status == CallStatus(Status.ABORTED)
    assert "details_invalid" in caplog.text


def test_success_says_nothing_else() -> None:
    assert status_from_trailers((("grpc-status", "0"), ("grpc-message", "x")), None) == OK
    OK.raise_for_error()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("400", Status.INTERNAL),
        ("401", Status.UNAUTHENTICATED),
        ("403", Status.PERMISSION_DENIED),
        ("404", Status.UNIMPLEMENTED),
        ("429", Status.UNAVAILABLE),
        ("500", Status.UNKNOWN),
        ("502", Status.UNAVAILABLE),
        ("503", Status.UNAVAILABLE),
        ("504", Status.UNAVAILABLE),
    ],
)
def test_http_errors_have_statuses(code: str, status: Status) -> None:
    assert status_from_http(code).status is status


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.NO_ERROR, Status.INTERNAL),
        (ErrorCode.CANCEL, Status.CANCELLED),
        (ErrorCode.REFUSED_STREAM, Status.UNAVAILABLE),
        (ErrorCode.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED),
        (ErrorCode.INADEQUATE_SECURITY, Status.PERMISSION_DENIED),
        (ErrorCode.PROTOCOL_ERROR, Status.INTERNAL),
        (4711, Status.INTERNAL),
    ],
)
def test_resets_have_statuses(code: int, status: Status) -> None:
    assert status_from_reset(code, "why") == CallStatus(status, "why")


def test_an_error_status_is_raised() -> None:
    with pytest.raises(GRPCError) as caught:
        CallStatus(Status.ABORTED, "why", ["details"]).raise_for_error()
    assert (caught.value.status, caught.value.message) == (Status.ABORTED, "why")
    assert caught.value.details == ["details"]


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded(),
        DeadlineExceeded("too late", ["details"]),
        ConnectionLost("gone", PluginExit(3, ("last words",))),
        ConnectionLost("gone"),
    ],
)
def test_errors_can_be_pickled(error: GRPCError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_a_deadline_that_passed_is_a_timeout_too() -> None:
    assert isinstance(DeadlineExceeded(), TimeoutError)
    assert DeadlineExceeded().status is Status.DEADLINE_EXCEEDED


def test_a_lost_connection_says_how_the_plugin_ended() -> None:
    error = ConnectionLost("gone", PluginExit(-9, ("a", "b")))
    assert error.status is Status.UNAVAILABLE
    assert error.exit_status == -9
    assert error.stderr_tail == ("a", "b")
    assert ConnectionLost("gone").exit_status is None
    assert ConnectionLost("gone").stderr_tail == ()
