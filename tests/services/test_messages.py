"""The hand-written messages against protobuf's own, built from descriptors in a private pool."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, strategies as st

from pyvider_rpcplugin.services._messages import (
    Empty,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
    ServingStatus,
)


def _real() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="h.proto", package="h", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="Request")
    request.field.add(name="service", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    response = file.message_type.add(name="Response")
    response.field.add(name="status", number=1, type=kind.TYPE_INT32, label=kind.LABEL_OPTIONAL)
    listing = file.message_type.add(name="List")
    entry = listing.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=kind.TYPE_MESSAGE,
        type_name=".h.Response",
        label=kind.LABEL_OPTIONAL,
    )
    listing.field.add(
        name="statuses",
        number=1,
        type=kind.TYPE_MESSAGE,
        type_name=".h.List.StatusesEntry",
        label=kind.LABEL_REPEATED,
    )
    later = file.message_type.add(name="Later")
    for number, type_ in enumerate(
        (kind.TYPE_FIXED64, kind.TYPE_FIXED32, kind.TYPE_BYTES, kind.TYPE_SINT64), start=2
    ):
        later.field.add(name=f"f{number}", number=number, type=type_, label=kind.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"h.{name}"))
        for name in ("Request", "Response", "List", "Later")
    }


REAL = _real()
names = st.text(st.characters(exclude_categories=["Cs"]))


@given(names)
def test_a_check_request_is_what_protobuf_makes_of_it(service: str) -> None:
    encoded = HealthCheckRequest(service).SerializeToString()
    assert encoded == REAL["Request"](service=service).SerializeToString()
    assert HealthCheckRequest.FromString(encoded) == HealthCheckRequest(service)


@given(st.sampled_from(ServingStatus))
def test_a_check_response_is_what_protobuf_makes_of_it(status: ServingStatus) -> None:
    encoded = HealthCheckResponse(status).SerializeToString()
    assert encoded == REAL["Response"](status=status).SerializeToString()
    assert HealthCheckResponse.FromString(encoded) == HealthCheckResponse(status)


@given(st.dictionaries(names, st.sampled_from(ServingStatus)))
def test_a_list_response_survives_a_trip_through_protobuf(
    statuses: dict[str, ServingStatus],
) -> None:
    ours = HealthListResponse({k: HealthCheckResponse(v) for k, v in statuses.items()})
    theirs = REAL["List"].FromString(ours.SerializeToString())
    assert {k: v.status for k, v in theirs.statuses.items()} == statuses
    assert HealthListResponse.FromString(theirs.SerializeToString()) == ours


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(),
    st.integers(-(2**63), 2**63 - 1),
)
def test_fields_of_a_later_version_are_skipped(f2: int, f3: int, f4: bytes, f5: int) -> None:
    later = REAL["Later"](f2=f2, f3=f3, f4=f4, f5=f5).SerializeToString()
    assert Empty.FromString(later) == Empty()
    known = HealthCheckRequest("x").SerializeToString()
    assert HealthCheckRequest.FromString(later + known) == HealthCheckRequest("x")


def test_a_status_of_a_later_version_is_unknown() -> None:
    data = REAL["Response"](status=77).SerializeToString()
    assert HealthCheckResponse.FromString(data).status is ServingStatus.UNKNOWN


@given(st.binary(max_size=40))
def test_garbage_is_a_value_error_or_a_message(data: bytes) -> None:
    for kind in (Empty, HealthCheckRequest, HealthCheckResponse, HealthListResponse):
        try:
            message = kind.FromString(data)
        except ValueError:
            continue
        assert isinstance(message, kind)


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x08" + b"\xff" * 11, b"\x0b", b"\x02"])
def test_cut_off_messages_are_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|too long|wire type|field 0"):
        HealthCheckRequest.FromString(data)
