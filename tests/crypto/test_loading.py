"""Certificates and keys that people bring: where they come from, and what is wrong with them."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin.crypto import (
    Certificate,
    client_context,
    load_identity,
    load_roots,
    server_context,
)
from pyvider_rpcplugin.crypto.contexts import peer_certificate
from pyvider_rpcplugin.exception import SecurityError

from .material import KINDS, make

NAMES = ("PLUGIN_SERVER_CERT", "PLUGIN_SERVER_KEY")


def load(certificate, key, **more):
    return load_identity(certificate, key, settings=NAMES, **more)


def refused(certificate, key, **more) -> SecurityError:
    with pytest.raises(SecurityError) as caught:
        load(certificate, key, **more)
    error = caught.value
    assert error.phase == "tls"
    assert "\n" not in error.message
    return error


def secrets_of(text: str) -> list[str]:
    """The lines of keys in a text that must not be in an error."""
    return [line for line in text.splitlines() if len(line) > 30 and "-----" not in line]


# --- what people look at -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_says_what_people_look_for(kind):
    found = Certificate.from_pem(make(kind, name="plugin.example", days=(-1, 10)).pem)
    assert found.subject == found.issuer == "CN=plugin.example"
    assert found.common_name == "plugin.example"
    assert found.dns_names == ("plugin.example",)
    assert found.sans == ("DNS:plugin.example",)
    assert found.not_before.tzinfo is dt.UTC
    assert dt.timedelta(days=9) < found.expires_in < dt.timedelta(days=10)
    if kind == "RSA":
        assert (found.key_type, found.key_size, found.curve) == ("RSA", 2048, None)
    else:
        size = int(kind[2:])
        assert (found.key_type, found.key_size, found.curve) == ("EC", size, f"secp{size}r1")
    assert not found.is_ca
    assert "plugin.example" in repr(found)


def test_a_certificate_has_the_fingerprint_that_others_compute():
    made = make()
    found = Certificate.from_der(made.der)
    assert found.fingerprint == made.certificate.fingerprint(hashes.SHA256()).hex()
    assert found.serial_number == made.certificate.serial_number
    assert found.pem == made.pem


def test_all_kinds_of_names_are_listed():
    authority = trustme.CA()
    issued = authority.issue_cert("a.example", "127.0.0.1", "::1", "*.b.example", "x@y.example")
    found = Certificate.from_pem(issued.cert_chain_pems[0].bytes())
    assert set(found.dns_names) == {"a.example", "*.b.example"}
    assert set(found.ip_addresses) == {"127.0.0.1", "::1"}
    assert "email:x@y.example" in found.sans
    assert Certificate.from_pem(authority.cert_pem.bytes()).is_ca
    assert found.is_issued_by(Certificate.from_pem(authority.cert_pem.bytes()))
    assert not found.is_issued_by(found)


def test_certificates_are_values():
    one, other = make(), make("P-384")
    assert Certificate.from_der(one.der) == Certificate.from_pem(one.pem)
    assert len({Certificate(one.der), Certificate(one.der), Certificate(other.der)}) == 2
    assert Certificate(one.der) != one.der
    assert pickle.loads(pickle.dumps(Certificate(one.der))) == Certificate(one.der)


def test_a_certificate_without_a_name_has_none():
    key = ed25519.Ed25519PrivateKey.generate()
    now = dt.datetime.now(dt.UTC)
    bare = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=3))
        .not_valid_after(now - dt.timedelta(days=1))
        .sign(key, None)
    )
    found = Certificate(bare.public_bytes(serialization.Encoding.DER))
    assert (found.common_name, found.sans, found.is_ca) == (None, (), False)
    assert (found.key_type, found.curve) == ("Ed25519", None)
    assert found.expires_in < dt.timedelta(0)


# --- where they come from ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["PKCS8", "SEC1"])
def test_keys_of_each_kind_and_form_are_taken(kind, form):
    made = make(kind)
    identity = load(made.pem, made.key_as(form))
    assert identity.certificate.der == made.der
    server_context(identity, load_roots(made.pem))


@pytest.mark.parametrize("form", ["PKCS8", "SEC1"])
@pytest.mark.parametrize("password", ["sesame", b"sesame"], ids=["text", "bytes"])
def test_an_encrypted_key_is_taken_with_its_password(form, password):
    made = make("P-384")
    key = made.key_as(form, b"sesame")
    assert load(made.pem, key, password=password).certificate.der == made.der
    assert "encrypted" in refused(made.pem, key).message
    error = refused(made.pem, key, password="open")
    assert "cannot be decrypted" in error.message
    assert "open" not in str(error)
    # A password that is not needed does no harm.
    load(made.pem, made.key_pem, password=password)


def test_they_come_as_text_or_uri_or_path(tmp_path):
    made = make()
    folder = tmp_path / "with space %25 ü"
    folder.mkdir()
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_text(f"comments are fine\n{made.pem}")
    key.write_text(made.key_pem)
    for cert_source, key_source in (
        (made.pem, made.key_pem),
        (str(certificate), str(key)),
        (certificate, key),
        (certificate.as_uri(), key.as_uri()),
        (certificate.as_uri().replace("file://", "FILE://localhost"), str(key)),
    ):
        assert load(cert_source, key_source).certificate.der == made.der


def test_a_relative_path_is_one_from_the_current_folder(tmp_path, monkeypatch):
    made = make()
    (tmp_path / "cert.pem").write_text(made.pem + made.key_pem)
    monkeypatch.chdir(tmp_path)
    assert load("cert.pem", "./cert.pem").certificate.der == made.der
    assert Certificate.load("cert.pem") == Certificate(made.der)


def test_what_openssl_writes_before_a_key_does_no_harm():
    made = make()
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    load(made.pem, curve + made.key_as("SEC1"))


def test_a_chain_keeps_its_order():
    root = make(name="root", ca=True, number=1)
    middle = make("P-384", name="middle", issuer=root, ca=True)
    leaf = make("P-521", issuer=middle)
    identity = load(leaf.pem + middle.pem + root.pem, leaf.key_pem)
    assert [each.der for each in identity.chain] == [leaf.der, middle.der, root.der]
    assert identity.pem.count(b"BEGIN CERTIFICATE") == 3
    assert [each.common_name for each in Certificate.load_chain(leaf.chain)] == [
        "localhost",
        "middle",
    ]


# --- what is wrong with them ---------------------------------------------------------------------


def test_each_wrong_input_is_named_with_its_setting_and_file(tmp_path):
    made, other = make("P-384"), make("P-384", number=9)
    good_cert, good_key = tmp_path / "good.crt", tmp_path / "good.key"
    good_cert.write_text(made.pem)
    good_key.write_text(made.key_pem)
    path = tmp_path / "wrong"
    key_der = base64.b64decode("".join(secrets_of(made.key_pem)))
    wrong_certificates = {
        b"": "is empty",
        b" \n": "is empty",
        b"no certificate": "holds no certificate",
        made.der: "is DER",
        made.pem[:-40].encode(): "cut off",
        made.pem.replace("\n", "\n*", 3).encode(): "no certificate that can be read",
        made.key_pem.encode(): "holds no certificate",
        (made.pem.splitlines()[0] + "\nAAAA\n" + made.pem.splitlines()[-1]).encode(): "can be read",
        b"x" * (1 << 20) + made.pem.encode(): "larger than",
    }
    for content, reason in wrong_certificates.items():
        path.write_bytes(content)
        error = refused(path, good_key)
        assert reason in error.message
        assert f"PLUGIN_SERVER_CERT ({path})" in error.message
    wrong_keys = {
        b"": "is empty",
        b"no key": "holds no private key",
        key_der: "is DER",
        made.key_pem[:-40].encode(): "cut off",
        made.key_pem.replace("M", "A", 1).encode(): "cannot be read",
        made.pem.encode(): "holds no private key",
        (made.key_pem * 2).encode(): "2 private keys",
        other.key_pem.encode(): "is not that of the certificate",
    }
    for content, reason in wrong_keys.items():
        path.write_bytes(content)
        error = refused(good_cert, path)
        assert reason in error.message
        assert f"PLUGIN_SERVER_KEY ({path})" in error.message
        for secret in secrets_of(content.decode(errors="replace")):
            assert secret not in str(error)


def test_no_error_holds_or_hides_what_was_read():
    made = make()
    broken = made.key_pem.replace("M", "A", 1)
    # However a key gets damaged on its way into a setting.
    for text in (
        broken,
        broken.replace("-----BEGIN PRIVATE KEY-----", ""),
        broken.replace("\n", " "),
        broken.replace("-----", "----"),
        "".join(secrets_of(broken)),
        secrets_of(broken)[0],
    ):
        error = refused(made.pem, text)
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None
        for secret in secrets_of(broken):
            assert secret not in str(error)
            assert secret not in repr(error)
        assert "PLUGIN_SERVER_KEY" in error.message


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_file_is_refused(tmp_path, which):
    made = make()
    good = [made.pem, made.key_pem]
    os.mkfifo(tmp_path / "pipe")
    for value, reason in (
        (tmp_path, "is a directory"),
        (tmp_path / "nothing-there", "no such file"),
        (tmp_path / "pipe", "no regular file"),
        ("/dev/null", "no regular file"),
        ("file://elsewhere/key.pem", "another machine"),
        ("a\0b", "not a path"),
    ):
        given_ = list(good)
        given_[which] = value
        error = refused(*given_)
        assert reason in error.message
        assert NAMES[which] in error.message


def test_a_file_that_this_user_may_not_read_is_named(tmp_path):
    made = make()
    path = tmp_path / "key.pem"
    path.write_text(made.key_pem)
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == path.owner() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    script = """
import os, sys
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
from pyvider_rpcplugin.crypto._source import PemSource
try:
    PemSource("PLUGIN_SERVER_KEY", sys.argv[1]).read()
except Exception as error:
    print(type(error).__name__, error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", "import pyvider_rpcplugin.crypto._source\n" + script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stdout.startswith(f"SecurityError PLUGIN_SERVER_KEY ({path}) cannot be read: perm")


def test_a_chain_in_the_wrong_order_is_refused():
    root = make(name="root", ca=True, number=1)
    middle = make("P-384", name="middle", issuer=root, ca=True)
    leaf = make("P-521", issuer=middle)
    for chain in (middle.pem + leaf.pem, root.pem + middle.pem + leaf.pem):
        assert "not in its order" in refused(chain, leaf.key_pem).message
    error = refused(leaf.pem + root.pem + middle.pem, leaf.key_pem)
    assert "not in its order: CN=root did not sign" in error.message


def test_what_is_not_valid_now_is_refused_with_the_date():
    for days, words in (((-10, -2), "expired on"), ((2, 10), "is not valid before")):
        made = make(days=days)
        when = made.certificate.not_valid_after_utc if days[1] < 0 else None
        when = when or made.certificate.not_valid_before_utc
        error = refused(made.pem, made.key_pem)
        assert f"{words} {when:%Y-%m-%d %H:%M:%S} UTC" in error.message
        with pytest.raises(SecurityError, match=words):
            load_roots(made.pem, setting="PLUGIN_CA_CERT")


def test_an_expired_signer_is_refused_too():
    root = make(name="root", ca=True, number=1, days=(-10, -1))
    leaf = make(issuer=root)
    assert "CN=root" in refused(leaf.pem + root.pem, leaf.key_pem).message


def test_what_expires_soon_is_one_warning(caplog):
    made = make(days=(-1, 20))
    with caplog.at_level(logging.WARNING):
        load(made.pem, made.key_pem)
    (record,) = caplog.records
    expected = f"expires on {made.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert expected in record.getMessage()
    caplog.clear()
    long = make(days=(-1, 40))
    load(long.pem, long.key_pem)
    assert not caplog.records


def test_keys_that_are_too_weak_or_of_another_kind_are_refused():
    for kind, reason in (("RSA-1024", "1024 bits"), ("secp256k1", "secp256k1")):
        made = make(kind)
        assert reason in refused(made.pem, made.key_pem).message
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert "neither" in refused(make().pem, pem.decode()).message


def test_of_several_authorities_those_that_are_valid_are_trusted(caplog):
    old = make(name="old", ca=True, days=(-10, -1))
    new = make("P-384", name="new", ca=True)
    roots = load_roots(old.pem + new.pem, setting="PLUGIN_CA_CERT")
    assert [each.common_name for each in roots.certificates] == ["new"]
    assert "CN=old" in caplog.text
    client_context(roots)


def test_an_identity_keeps_its_key_to_itself():
    made = make()
    identity = load(made.pem, made.key_pem)
    for secret in secrets_of(made.key_pem):
        assert secret not in repr(identity)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(identity)


# --- garbage -------------------------------------------------------------------------------------

_GOOD = make("P-256", number=3)


def error_of(call) -> SecurityError | None:
    """The documented error, if it is raised; any other one goes on."""
    try:
        call()
    except SecurityError as error:
        return error
    return None


_garbage = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=300).map(lambda data: data.decode("latin-1")),
    st.binary(min_size=1, max_size=200).map(
        lambda data: (
            "-----BEGIN CERTIFICATE-----\n"
            + base64.b64encode(data).decode()
            + "\n-----END CERTIFICATE-----\n"
        )
    ),
)


@st.composite
def damaged(draw, text: str) -> str:
    """A good text with some characters changed, left out, or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        width = draw(st.integers(0, 30))
        text = text[:at] + draw(st.text("AB+/=-\n \0Mé", max_size=5)) + text[at + width :]
    return text


@settings(max_examples=300)
@given(text=_garbage | damaged(_GOOD.pem))
def test_garbage_for_a_certificate_does_nothing_but_raise_the_documented_error(text):
    for read in (
        lambda: load(text, _GOOD.key_pem),
        lambda: load_roots(text),
        lambda: Certificate.from_pem(text),
        lambda: peer_certificate(text),
    ):
        error = error_of(read)
        assert error is None or error.phase == "tls"


@settings(max_examples=300)
@given(text=_garbage | damaged(_GOOD.key_pem) | damaged(_GOOD.key_as("SEC1", b"x")))
def test_garbage_for_a_key_does_nothing_but_raise_the_documented_error(text):
    error = error_of(lambda: load(_GOOD.pem, text, password="x"))
    for secret in secrets_of(_GOOD.key_pem):
        assert secret not in str(error)


@settings(max_examples=300)
@given(data=st.binary(max_size=300), at=st.integers(0, 400), width=st.integers(0, 20))
def test_garbage_in_der_does_nothing_but_raise_the_documented_error(data, at, width):
    for der in (data, _GOOD.der[:at] + data[:width] + _GOOD.der[at + width :]):
        error = error_of(lambda der=der: Certificate.from_der(der))
        assert error is None or error.phase == "tls"


def test_an_address_is_written_as_people_write_it():
    authority = trustme.CA()
    found = Certificate.from_pem(authority.issue_cert("10.0.0.1").cert_chain_pems[0].bytes())
    assert ipaddress.ip_address(found.ip_addresses[0]) == ipaddress.ip_address("10.0.0.1")
