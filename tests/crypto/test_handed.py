"""The pair that a host makes for its plugin: written, and read again or left alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.crypto import auto_certificate, host_tls, make_certificate, plugin_tls
from pyvider_rpcplugin.crypto._handed import pack, unpack
from tests.crypto.material import make

DAYS = 30


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_a_pair_of_each_curve_is_read_as_it_was_made(curve: str) -> None:
    made = make_certificate(curve, DAYS)
    data = pack(made, DAYS)
    assert len(data) < 4096
    found = unpack(data, curve, DAYS)
    assert found is not None
    assert (found.der, found.key_der, found.curve) == (made.der, made.key_der, curve)
    assert (found.not_before, found.not_after) == (made.not_before, made.not_after)
    assert repr(found) == repr(made)


def test_a_pair_of_another_kind_than_is_wanted_is_not_used() -> None:
    data = pack(make_certificate("secp256r1", DAYS), DAYS)
    assert unpack(data, "secp384r1", DAYS) is None
    assert unpack(data, "secp256r1", DAYS + 1) is None


def test_what_another_version_wrote_is_not_used() -> None:
    fields = msgspec.msgpack.decode(pack(make_certificate("secp256r1", DAYS), DAYS))
    for other in (
        [fields[0] + 1, *fields[1:]],
        [*fields, "more"],
        fields[:-1],
        [*fields[:5], b"\x30\x02", fields[6]],
        [*fields[:6], fields[6] + b"\0"],
        [*fields[:6], "text"],
        dict.fromkeys("abc", 1),
    ):
        assert unpack(msgspec.msgpack.encode(other), "secp256r1", DAYS) is None


@given(st.binary(max_size=200))
def test_garbage_is_not_used(data: bytes) -> None:
    assert unpack(data, "secp256r1", DAYS) is None


def test_a_host_makes_another_pair_each_time_and_none_without_automatic_tls() -> None:
    tls = host_tls(Settings())
    first, second = tls.for_plugin(), tls.for_plugin()
    assert first is not None
    assert second is not None
    settings = Settings()
    kind = settings.cert_curve, settings.cert_validity_days
    pairs = [unpack(data, *kind) for data in (first, second)]
    ders = {pair.der for pair in pairs if pair is not None}
    assert len(ders | {auto_certificate(*kind).der}) == 3
    assert host_tls(Settings(auto_mtls=False)).for_plugin() is None


@pytest.mark.parametrize("handed", [None, b"", b"\xc1", "another"])
def test_a_plugin_that_cannot_use_what_it_got_makes_its_own(handed: bytes | str | None) -> None:
    data = pack(make_certificate("secp384r1", 7), 7) if isinstance(handed, str) else handed
    tls = plugin_tls(Settings(host_certificate=make("P-256").pem), handed=data)
    assert tls.certificate == auto_certificate().der


def test_a_plugin_uses_what_it_got() -> None:
    made = make_certificate()
    data = pack(made, Settings().cert_validity_days)
    tls = plugin_tls(Settings(host_certificate=make("P-256").pem), handed=data)
    assert tls.certificate == made.der
    assert tls.certificate != auto_certificate().der
