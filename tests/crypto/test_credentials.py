"""What the settings mean for a host and for a plugin, and that changed files are read again."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from typing import Any

import pytest

from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.crypto import (
    Credentials,
    Mode,
    auto_certificate,
    host_tls,
    make_certificate,
    plugin_tls,
)
from pyvider_rpcplugin.crypto.contexts import peer_certificate
from pyvider_rpcplugin.exception import ConfigError, SecurityError

from .material import make

AUTHORITY = make(name="authority", ca=True, number=5)
HOST = make(issuer=AUTHORITY)
PLUGIN = make("P-384", issuer=AUTHORITY)
PEER = make_certificate("secp521r1")

HOST_OWN: dict[str, Any] = {
    "client_cert": HOST.pem,
    "client_key": HOST.key_pem,
    "server_root_certs": AUTHORITY.pem,
}
PLUGIN_OWN: dict[str, Any] = {
    "server_cert": PLUGIN.pem,
    "server_key": PLUGIN.key_pem,
    "client_root_certs": AUTHORITY.pem,
}


def host(**settings):
    return host_tls(Settings(**settings))


def plugin(**settings):
    return plugin_tls(Settings(**settings))


# --- a host --------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_mtls", [True, "required"])
def test_a_host_makes_a_certificate_and_pins_the_one_of_the_answer(auto_mtls):
    tls = host(auto_mtls=auto_mtls)
    assert tls.mode is Mode.AUTO
    assert tls.certificate is not None
    assert peer_certificate(tls.certificate) == auto_certificate().der
    credentials = tls.credentials(PEER.der)
    assert credentials is not None
    assert credentials.pinned == PEER.der
    assert credentials.server_hostname == "localhost"
    context = credentials.context()
    assert context.get_ca_certs(binary_form=True) == [PEER.der]
    assert credentials.context() is context


def test_the_settings_say_how_the_certificate_is_made():
    tls = host(cert_curve="secp384r1", cert_validity_days=7)
    made = auto_certificate("secp384r1", 7)
    assert tls.certificate == made.pem
    assert (made.certificate.not_after - made.certificate.not_before).days == 7


def test_a_host_refuses_a_plugin_that_sends_no_certificate():
    with pytest.raises(SecurityError, match="does not use automatic mutual TLS") as caught:
        host().credentials(None)
    assert caught.value.phase == "handshake"
    assert "PLUGIN_AUTO_MTLS" in (caught.value.hint or "")


def test_a_host_refuses_a_certificate_that_cannot_be_read():
    for answer in (b"", PEER.der[:-3], b"\x30\x03\x02\x01\x01"):
        with pytest.raises(SecurityError, match="handshake line is none that can be read"):
            host().credentials(answer)


def test_a_plain_host_refuses_a_certificate_that_it_did_not_ask_for():
    tls = host(auto_mtls=False)
    assert (tls.mode, tls.certificate) == (Mode.PLAIN, None)
    assert tls.credentials(None) is None
    with pytest.raises(SecurityError, match="not asked for") as caught:
        tls.credentials(PEER.der)
    assert "PLUGIN_AUTO_MTLS" in (caught.value.hint or "")


def test_own_certificates_turn_automatic_ones_off():
    tls = host(**HOST_OWN, auto_mtls="required")
    assert (tls.mode, tls.certificate) == (Mode.OWN, None)
    credentials = tls.credentials(None)
    assert credentials is not None
    assert credentials.pinned is None
    assert credentials.context().get_ca_certs(binary_form=True) == [AUTHORITY.der]
    with pytest.raises(SecurityError, match="not asked for"):
        tls.credentials(PEER.der)


def test_a_host_may_trust_an_authority_without_a_certificate_of_its_own():
    tls = host(ca_cert=AUTHORITY.pem)
    assert tls.mode is Mode.OWN
    assert tls.credentials(None) is not None


def test_a_name_can_be_asked_for():
    tls = host_tls(Settings(ca_cert=AUTHORITY.pem), server_hostname="plugins.example")
    credentials = tls.credentials(None)
    assert credentials is not None
    assert credentials.server_hostname == "plugins.example"


def test_a_context_of_ones_own_goes_before_everything():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = host_tls(Settings(**HOST_OWN), context)
    assert (tls.mode, tls.certificate) == (Mode.GIVEN, None)
    credentials = tls.credentials(None)
    assert credentials is not None
    assert credentials.context() is context
    with pytest.raises(SecurityError, match="not asked for"):
        tls.credentials(PEER.der)


# --- a plugin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_mtls", [True, "required"])
def test_a_plugin_answers_a_host_that_sent_a_certificate(auto_mtls, caplog):
    tls = plugin(auto_mtls=auto_mtls, host_certificate=PEER.pem)
    assert tls.mode is Mode.AUTO
    assert tls.certificate == auto_certificate().der
    assert tls.credentials is not None
    assert tls.credentials.pinned == PEER.der
    assert tls.credentials.context().get_ca_certs(binary_form=True) == [PEER.der]
    assert not caplog.records


def test_a_plugin_whose_host_sent_no_certificate_is_plain_with_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        tls = plugin()
    assert (tls.mode, tls.credentials, tls.certificate) == (Mode.PLAIN, None, None)
    (record,) = caplog.records
    assert "plain" in record.getMessage()


def test_a_plugin_that_requires_it_refuses_a_host_without():
    with pytest.raises(SecurityError, match="the host sent no certificate"):
        plugin(auto_mtls="required")
    with pytest.raises(SecurityError, match="there is no host"):
        plugin_tls(Settings(auto_mtls="required", host_certificate=PEER.pem), standalone=True)


def test_a_plugin_that_never_uses_it_is_plain_without_a_word(caplog):
    for given in (None, PEER.pem):
        tls = plugin(auto_mtls=False, host_certificate=given)
        assert (tls.mode, tls.certificate) == (Mode.PLAIN, None)
    assert not caplog.records


@pytest.mark.parametrize(
    "given",
    [
        "garbage",
        PEER.pem * 2,
        PEER.pem[:-40],
        PEER.key_pem,
        PEER.pem.replace(PEER.pem[40:60], ""),
        ssl.DER_cert_to_PEM_cert(b"\x30\x03\x02\x01\x01"),
    ],
    ids=["garbage", "two", "cut off", "a key", "damaged", "a number"],
)
def test_a_plugin_refuses_a_host_whose_certificate_cannot_be_read(given):
    with pytest.raises(SecurityError, match="PLUGIN_CLIENT_CERT"):
        plugin(host_certificate=given)


def test_a_server_without_a_host_is_plain_unless_it_is_told_otherwise(caplog):
    tls = plugin_tls(Settings(host_certificate=PEER.pem), standalone=True)
    assert tls.mode is Mode.PLAIN
    assert "no certificates were given" in caplog.text
    assert plugin_tls(Settings(**PLUGIN_OWN), standalone=True).mode is Mode.OWN


def test_a_plugin_with_certificates_of_its_own_ignores_that_of_the_host():
    tls = plugin(**PLUGIN_OWN, host_certificate=PEER.pem)
    assert (tls.mode, tls.certificate) == (Mode.OWN, None)
    assert tls.credentials is not None
    assert tls.credentials.context().get_ca_certs(binary_form=True) == [AUTHORITY.der]


def test_a_plugin_takes_a_context_of_its_own():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = plugin_tls(Settings(host_certificate=PEER.pem), context)
    assert (tls.mode, tls.certificate) == (Mode.GIVEN, None)
    assert tls.credentials is not None
    assert tls.credentials.context() is context


def test_an_authority_that_was_inherited_does_not_turn_automatic_certificates_off():
    tls = plugin(ca_cert=AUTHORITY.pem, host_certificate=PEER.pem)
    assert tls.mode is Mode.AUTO


def test_the_authority_stands_in_for_both_others():
    given = {name: value for name, value in PLUGIN_OWN.items() if "root" not in name}
    assert plugin(**given, ca_cert=AUTHORITY.pem).mode is Mode.OWN
    given = {name: value for name, value in HOST_OWN.items() if "root" not in name}
    assert host(**given, ca_cert=AUTHORITY.pem).mode is Mode.OWN


# --- what is missing or wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decide", "given", "names"),
    [
        (host, {"client_cert": HOST.pem}, ["PLUGIN_CLIENT_CERT", "PLUGIN_CLIENT_KEY"]),
        (host, {"client_key": HOST.key_pem}, ["PLUGIN_CLIENT_CERT", "PLUGIN_CLIENT_KEY"]),
        (
            host,
            {"client_cert": HOST.pem, "client_key": HOST.key_pem},
            ["PLUGIN_SERVER_ROOT_CERTS", "PLUGIN_CA_CERT"],
        ),
        (plugin, {"server_cert": PLUGIN.pem}, ["PLUGIN_SERVER_CERT", "PLUGIN_SERVER_KEY"]),
        (plugin, {"server_key": PLUGIN.key_pem}, ["PLUGIN_SERVER_CERT", "PLUGIN_SERVER_KEY"]),
        (
            plugin,
            {"server_cert": PLUGIN.pem, "server_key": PLUGIN.key_pem},
            ["PLUGIN_CLIENT_ROOT_CERTS", "PLUGIN_CA_CERT"],
        ),
        (plugin, {"client_root_certs": AUTHORITY.pem}, ["PLUGIN_CLIENT_ROOT_CERTS"]),
        (plugin, {"ca_cert": AUTHORITY.pem}, ["PLUGIN_CA_CERT", "PLUGIN_SERVER_CERT"]),
    ],
)
def test_half_a_set_of_certificates_is_refused_with_what_is_missing(decide, given, names):
    with pytest.raises(SecurityError) as caught:
        decide(**given)
    for name in names:
        assert name in str(caught.value)
    assert caught.value.phase == "tls"


@pytest.mark.parametrize("name", [*HOST_OWN, *PLUGIN_OWN])
def test_each_setting_that_cannot_be_used_is_named(name):
    decide, given = (host, HOST_OWN) if name in HOST_OWN else (plugin, PLUGIN_OWN)
    with pytest.raises(SecurityError, match=f"PLUGIN_{name.upper()} \\(/nothing/there.pem\\)"):
        decide(**{**given, name: "/nothing/there.pem"})
    with pytest.raises(SecurityError, match=f"PLUGIN_{name.upper()} \\(inline PEM\\)"):
        decide(**{**given, name: "-----BEGIN NOTHING-----"})


@pytest.mark.parametrize("tls", ["context", 5, object()])
def test_what_is_no_context_is_a_wrong_setting(tls):
    for decide in (host_tls, plugin_tls):
        with pytest.raises(ConfigError, match=r"ssl\.SSLContext"):
            decide(Settings(), tls)


def test_a_context_for_the_other_side_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="other side"):
        host_tls(Settings(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(ConfigError, match="other side"):
        plugin_tls(Settings(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


# --- rotation ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    paths = {name: tmp_path / f"{name}.pem" for name in PLUGIN_OWN}
    for name, text in PLUGIN_OWN.items():
        paths[name].write_text(text)
    return paths


def certificate_of(credentials: Credentials) -> bytes | None:
    """The certificate that a client of these credentials would see."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(one, other)
    server_end = credentials.context().wrap_bio(other, one, server_side=True)
    for end in (client_end, server_end, client_end):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client_end.getpeercert(binary_form=True)


def test_files_that_changed_are_read_again_for_new_connections(files):
    tls = plugin(**{name: str(path) for name, path in files.items()})
    credentials = tls.credentials
    assert credentials is not None
    assert certificate_of(credentials) == PLUGIN.der
    first = credentials.context()
    assert credentials.context() is first
    renewed = make("P-521", issuer=AUTHORITY, number=2)
    files["server_cert"].write_text(renewed.pem)
    files["server_key"].write_text(renewed.key_pem)
    assert certificate_of(credentials) == renewed.der
    assert credentials.context() is not first


def test_files_that_were_replaced_are_noticed_too(files, tmp_path):
    credentials = plugin(**{name: str(path) for name, path in files.items()}).credentials
    assert credentials is not None
    renewed = make("P-384", issuer=AUTHORITY, number=2)
    for name, text in (("server_cert", renewed.pem), ("server_key", renewed.key_pem)):
        new = tmp_path / "new"
        new.write_text(text)
        # As programs do it that keep the dates of what they copy.
        found = files[name].stat()
        os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
        new.replace(files[name])
    assert certificate_of(credentials) == renewed.der


def test_while_files_do_not_fit_the_last_good_ones_stay_in_use(files, caplog):
    credentials = plugin(**{name: str(path) for name, path in files.items()}).credentials
    assert credentials is not None
    renewed = make("P-521", issuer=AUTHORITY, number=2)
    files["server_cert"].write_text(renewed.pem)  # and the key comes a little later
    for _ in range(3):
        assert certificate_of(credentials) == PLUGIN.der
    (record,) = caplog.records
    assert "stay in use" in record.getMessage()
    assert "PLUGIN_SERVER_KEY" in record.getMessage()
    files["server_key"].unlink()
    assert certificate_of(credentials) == PLUGIN.der
    files["server_key"].write_text(renewed.key_pem)
    assert certificate_of(credentials) == renewed.der
    assert len(caplog.records) == 2


def test_nothing_is_read_again_where_nothing_can_change(monkeypatch):
    credentials = plugin(**PLUGIN_OWN).credentials
    assert credentials is not None
    monkeypatch.setattr(os, "stat", lambda *_: pytest.fail("there is no file"))
    assert credentials.context() is credentials.context()
