"""The certificate that is made for one run."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import ssl
import subprocess
import sys
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, strategies as st

from pyvider_rpcplugin.crypto import Certificate, auto_certificate, make_certificate
from pyvider_rpcplugin.crypto._template import CURVES, _cache, _integer
from pyvider_rpcplugin.exception import ConfigError

CURVE_NAMES = list(CURVES)
HASHES = {"secp256r1": "sha256", "secp384r1": "sha384", "secp521r1": "sha512"}


@pytest.fixture
def _empty_cache():
    _cache.forget()
    yield
    _cache.forget()


@pytest.mark.parametrize("curve", CURVE_NAMES)
def test_it_has_the_shape_that_go_plugin_gives_its_own(curve):
    made = make_certificate(curve)
    found = x509.load_der_x509_certificate(made.der)
    assert found.version is x509.Version.v3
    assert found.subject == found.issuer
    assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "localhost"
    assert found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == (
        "pyvider-rpcplugin"
    )
    assert found.signature_hash_algorithm is not None
    assert found.signature_hash_algorithm.name == HASHES[curve]
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == curve

    extensions = {each.oid: each for each in found.extensions}
    assert len(extensions) == 5
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=None)
    usage = found.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    extended = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert set(extended.value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName("localhost")]
    identifier = found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert len(identifier.value.digest) == 20


@pytest.mark.parametrize("curve", CURVE_NAMES)
def test_it_signs_itself_with_the_key_that_comes_with_it(curve):
    made = make_certificate(curve)
    found = x509.load_der_x509_certificate(made.der)
    found.verify_directly_issued_by(found)
    for key in (
        serialization.load_der_private_key(made.key_der, None),
        serialization.load_pem_private_key(made.key_pem.encode(), None),
    ):
        assert key.public_key() == found.public_key()
    assert x509.load_pem_x509_certificate(made.pem.encode()) == found
    assert ssl.PEM_cert_to_DER_cert(made.pem) == made.der


def test_reading_it_and_writing_it_again_gives_the_same_bytes():
    made = make_certificate()
    found = x509.load_der_x509_certificate(made.der)
    assert found.public_bytes(serialization.Encoding.DER) == made.der
    key = serialization.load_der_private_key(made.key_der, None)
    again = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert again == made.key_der


def test_no_two_are_alike():
    made = [make_certificate() for _ in range(20)]
    found = [x509.load_der_x509_certificate(each.der) for each in made]
    assert len({each.serial_number for each in found}) == 20
    assert len({each.public_key().public_numbers().x for each in found}) == 20  # type: ignore[union-attr]
    assert all(0 < each.serial_number < 1 << 128 for each in found)


@given(serial=st.integers(0, (1 << 128) - 1))
def test_a_number_is_written_as_short_as_der_wants_it_and_never_negative(serial):
    encoded = _integer(serial)
    assert encoded[:2] == bytes([2, len(encoded) - 2])
    assert int.from_bytes(encoded[2:], "big", signed=True) == serial
    assert len(encoded) == 3 or encoded[2] or encoded[3] & 0x80


# From 1970 to 2200: the two forms of dates meet at the beginning of 2050.
@given(
    now=st.integers(86_400, 7_258_118_400) | st.integers(2_524_600_000, 2_524_620_000),
    days=st.integers(1, 36_500),
)
def test_its_dates_are_those_that_were_asked_for(now, days):
    made = make_certificate(validity_days=days, now=now)
    found = x509.load_der_x509_certificate(made.der)
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    assert found.not_valid_before_utc == start - dt.timedelta(seconds=30)
    assert found.not_valid_after_utc == start + dt.timedelta(days=days)
    assert (made.not_before, made.not_after) == (now - 30, now + days * 86_400)


@pytest.mark.parametrize(
    ("now", "form"), [(2_524_607_999 + 30, b"\x17\x0d"), (2_524_608_000 + 30, b"\x18\x0f")]
)
def test_the_form_of_a_date_changes_with_the_year_2050(now, form):
    made = make_certificate(validity_days=36_500, now=now)
    validity = made.der.index(b"\x0c\x09localhost") + 11
    assert made.der[validity + 2 : validity + 4] == form
    found = x509.load_der_x509_certificate(made.der)
    assert found.not_valid_before_utc.year == (2049 if form[0] == 0x17 else 2050)


def test_openssl_reads_it_as_we_do():
    made = make_certificate(validity_days=10)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=made.der)
    (found,) = context.get_ca_certs()
    assert found["subject"] == found["issuer"]
    assert found["subjectAltName"] == (("DNS", "localhost"),)
    assert ssl.cert_time_to_seconds(str(found["notBefore"])) == made.not_before
    assert ssl.cert_time_to_seconds(str(found["notAfter"])) == made.not_after


def test_a_curve_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="secp256k1"):
        make_certificate("secp256k1")


@pytest.mark.usefixtures("_empty_cache")
def test_a_process_has_one_for_each_curve_and_validity():
    first = auto_certificate()
    assert auto_certificate() is first
    assert auto_certificate("secp384r1") is not first
    assert auto_certificate(validity_days=1) is not first
    assert auto_certificate() is first


@pytest.mark.usefixtures("_empty_cache")
def test_threads_that_ask_at_the_same_time_get_the_same_one():
    gate = threading.Barrier(8)
    found = []

    def ask():
        gate.wait(60)
        found.append(auto_certificate())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len({id(each) for each in found}) == 1


@pytest.mark.usefixtures("_empty_cache")
def test_a_process_that_outlives_half_of_the_validity_gets_a_new_one(monkeypatch):
    first = auto_certificate(validity_days=2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_300)
    assert auto_certificate(validity_days=2) is first
    monkeypatch.setattr(time, "time", lambda: now + 86_500)
    second = auto_certificate(validity_days=2)
    assert second is not first
    assert auto_certificate(validity_days=2) is second


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_makes_its_own_even_if_a_thread_was_making_one():
    script = """
import os
from pyvider_rpcplugin.crypto import _template
ours = _template.auto_certificate()
_template._cache.lock.acquire()  # as another thread would, at the moment of the fork
pid = os.fork()
if not pid:
    os._exit(_template.auto_certificate().der == ours.der)
_template._cache.lock.release()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), _template.auto_certificate() is ours)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.split() == ["0", "True"]


def test_nothing_that_is_printed_or_pickled_holds_the_key():
    made = make_certificate()
    secret = made.key_pem.splitlines()[1]
    for text in (repr(made), str(made), repr(vars(type(made)))):
        assert secret not in text
        assert made.key_der.hex() not in text
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(made)


def test_it_can_be_looked_at():
    made = make_certificate("secp521r1", 3)
    found = made.certificate
    assert isinstance(found, Certificate)
    assert (found.curve, found.der) == ("secp521r1", made.der)


def test_making_it_loads_no_library_for_certificates():
    script = """
import sys
from pyvider_rpcplugin.crypto import auto_certificate, auto_client_context, auto_server_context
from pyvider_rpcplugin.crypto.credentials import host_tls, plugin_tls
own = auto_certificate()
auto_client_context(own, own.der), auto_server_context(own, own.der)
heavy = ("x509", "serialization", "backends", "asyncio", "anyio", "trio", "tempfile")
for name in sorted(sys.modules):
    if name.startswith("cryptography") or name.partition(".")[0] in heavy:
        print(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50
    )
    loaded = set(done.stdout.split())
    allowed = {
        "cryptography",
        "cryptography.__about__",
        "cryptography.exceptions",
        "cryptography.utils",
        "cryptography.hazmat",
        "cryptography.hazmat._oid",
        "cryptography.hazmat.bindings",
        "cryptography.hazmat.bindings._rust",
        "cryptography.hazmat.primitives",
        "cryptography.hazmat.primitives._serialization",
        "cryptography.hazmat.primitives.asymmetric",
        "cryptography.hazmat.primitives.asymmetric.ec",
        "cryptography.hazmat.primitives.asymmetric.utils",
        "cryptography.hazmat.primitives.hashes",
    }
    assert loaded <= allowed
