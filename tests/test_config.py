from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin import config
from pyvider_rpcplugin.config import (
    Settings,
    application_keys,
    configure,
    load_settings,
    setting_names,
    settings_table,
    started_by_host,
)
from pyvider_rpcplugin.exception import ConfigError

DOCUMENT = Path(__file__).parents[1] / "docs" / "settings.md"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
# What every go-plugin host puts into its plugin's environment.
FROM_HOST = {
    "PLUGIN_PROTOCOL_VERSIONS": "6,5",
    "PLUGIN_MIN_PORT": "10000",
    "PLUGIN_MAX_PORT": "25000",
}


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch):
    monkeypatch.setattr(config, "_configured", {})


def host(given=None, *, environ=None, **overrides):
    return load_settings(given, overrides=overrides, environ=environ or {}, side="host")


def plugin(given=None, *, environ=None, **overrides):
    return load_settings(given, overrides=overrides, environ=environ or {}, side="plugin")


def refusal(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    error = caught.value
    assert isinstance(error, ValueError)
    assert "\n" not in error.message
    assert str(error).count("\n") <= 4
    assert error.__cause__ is None
    assert error.__context__ is None, "a chained error could repeat a secret"
    return error


# --- where a value comes from


def test_without_anything_every_setting_has_its_default():
    assert host() == plugin() == Settings()


def test_the_later_source_wins():
    environ = {"PLUGIN_HANDSHAKE_TIMEOUT": "1"}
    assert host(environ=environ).handshake_timeout == 1
    configure(handshake_timeout=2)
    assert host(environ=environ).handshake_timeout == 2
    given = {"PLUGIN_HANDSHAKE_TIMEOUT": 3}
    assert host(given, environ=environ).handshake_timeout == 3
    assert host(given, environ=environ, handshake_timeout=4).handshake_timeout == 4


def test_the_environment_is_read_at_the_time_of_the_call(monkeypatch):
    assert load_settings(side="host").log_level == "INFO"
    monkeypatch.setitem(os.environ, "PLUGIN_LOG_LEVEL", "debug")
    assert load_settings(side="host").log_level == "DEBUG"


def test_what_one_object_is_given_changes_no_other():
    given = {"PLUGIN_MAX_WORKERS": 50, "mine": [1]}
    assert plugin(given).max_workers == 50
    assert plugin().max_workers == 40
    assert given == {"PLUGIN_MAX_WORKERS": 50, "mine": [1]}


def test_configure_knows_both_spellings():
    configure(PLUGIN_AUTO_MTLS=False)
    assert host().auto_mtls is False
    configure(auto_mtls=True)
    assert host().auto_mtls is True


def test_calls_of_configure_add_up_and_none_takes_one_back():
    configure(max_workers=1)
    configure(handshake_timeout=2)
    assert (plugin().max_workers, host().handshake_timeout) == (1, 2)
    configure(PLUGIN_MAX_WORKERS=None)
    assert (plugin().max_workers, host().handshake_timeout) == (40, 2)


def test_configure_sets_all_or_nothing():
    refusal(configure, max_workers=1, handshake_timeout="soon")
    assert plugin().max_workers == 40


def test_an_empty_variable_counts_as_not_set():
    assert host(environ={"PLUGIN_HANDSHAKE_TIMEOUT": ""}).handshake_timeout == 10


def test_unknown_variables_with_the_prefix_are_left_alone():
    assert host(environ={"PLUGIN_REPO_NAME": "x", "plugin_log_level": "DEBUG"}) == Settings()


def test_only_variables_for_the_own_side_are_read():
    environ = {"PLUGIN_MAX_WORKERS": "none", "PLUGIN_HANDSHAKE_TIMEOUT": "7"}
    assert host(environ=environ).handshake_timeout == 7
    refusal(plugin, environ=environ)


def test_one_mapping_may_serve_both_sides():
    given = {"PLUGIN_MAX_WORKERS": 3, "PLUGIN_HANDSHAKE_TIMEOUT": 4}
    assert host(given) == plugin(given)


def test_an_alias_means_its_setting():
    assert host({"PLUGIN_TIMEOUT_GRACEFUL_SHUTDOWN": 5}).grpc_grace_period == 5
    assert plugin(timeout_graceful_shutdown=5).grpc_grace_period == 5
    environ = {"PLUGIN_TIMEOUT_GRACEFUL_SHUTDOWN": "5"}
    assert plugin(environ=environ).grpc_grace_period == 5
    assert plugin({"PLUGIN_GRPC_GRACE_PERIOD": 6}, environ=environ).grpc_grace_period == 6


def test_one_setting_given_twice_must_say_the_same():
    same = {"PLUGIN_TIMEOUT_GRACEFUL_SHUTDOWN": 5, "PLUGIN_GRPC_GRACE_PERIOD": 5}
    assert host(same).grpc_grace_period == 5
    error = refusal(host, same | {"PLUGIN_GRPC_GRACE_PERIOD": 6})
    assert "PLUGIN_TIMEOUT_GRACEFUL_SHUTDOWN" in error.message
    assert "PLUGIN_GRPC_GRACE_PERIOD" in error.message


def test_keys_without_the_prefix_are_the_applications_own():
    given = {"env": {"A": "1"}, "auto_mtls": "mine", "PLUGIN_MAX_WORKERS": 3}
    assert plugin(given).auto_mtls is True
    assert application_keys(given) == {"env": {"A": "1"}, "auto_mtls": "mine"}
    assert application_keys(given)["env"] is given["env"]
    assert application_keys(None) == {}


def test_the_names_for_the_factories_are_all_settings_and_aliases():
    names = setting_names()
    assert {"auto_mtls", "max_workers", "timeout_graceful_shutdown"} <= names
    assert (
        not {"offered_versions", "host_certificate", "multiplex_requested", "multiplex_wanted"}
        & names
    )
    assert all(name == name.lower() for name in names)


# --- values


def test_every_default_is_accepted_where_it_is_given():
    defaults = {name: getattr(Settings(), name) for name in setting_names() & set(dir(Settings()))}
    assert len(defaults) == len(config._table())
    assert host(**defaults) == plugin(**defaults) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PROTOCOL_VERSIONS", "6,5", (5, 6)),
        ("LOG_LEVEL", "warn", "WARNING"),
        ("CLIENT_TRANSPORTS", "tcp", ("tcp",)),
        ("MAX_PORT", "65535", 65535),
        ("GRPC_MAX_RECEIVE_MESSAGE_SIZE", "-1", -1),
        ("CLIENT_RETRY_ENABLED", "off", False),
        ("CLIENT_RETRY_TOTAL_TIMEOUT_S", "2.5", 2.5),
        ("AUTO_MTLS", "No", False),
    ],
)
def test_text_from_the_environment_becomes_a_value(name, text, value):
    settings = host(environ={f"PLUGIN_{name}": text})
    assert getattr(settings, name.lower()) == value


def test_an_error_names_setting_value_source_and_what_is_accepted():
    error = refusal(host, environ={"PLUGIN_HANDSHAKE_TIMEOUT": "soon"})
    assert error.message == (
        "PLUGIN_HANDSHAKE_TIMEOUT from the environment is 'soon': "
        "accepted is a number of seconds above 0"
    )
    assert error.hint == "The default is 10.0."
    assert "configure()" in refusal(configure, handshake_timeout=0).message
    assert "config=" in refusal(host, {"PLUGIN_HANDSHAKE_TIMEOUT": None}).message
    assert "a keyword" in refusal(host, handshake_timeout=-1).message


@pytest.mark.parametrize("value", [3, None, "", b"hidden-secret", ["hidden-secret"]])
def test_a_bad_cookie_or_key_is_never_shown(value):
    for name in ("magic_cookie_value", "client_key", "server_key"):
        if value in (None, "") and name != "magic_cookie_value":
            continue
        error = refusal(host, **{name: value})
        assert "hidden-secret" not in repr(error) + str(error)


def test_inline_pem_is_never_shown():
    for name in ("log_level", "core_version", "cert_curve"):
        error = refusal(host, **{name: PEM})
        assert "MIIB" not in str(error)


def test_an_unknown_name_gets_the_nearest_known_one():
    error = refusal(host, {"PLUGIN_HANDSHAKE_TIMOUT": "hidden-secret"})
    assert "PLUGIN_HANDSHAKE_TIMOUT" in error.message
    assert error.hint == "The nearest known name is PLUGIN_HANDSHAKE_TIMEOUT."
    assert "hidden-secret" not in str(error)
    assert "auto_mtls" in refusal(host, auto_mtl=True).hint
    assert "PLUGIN_LOG_LEVEL" in refusal(configure, PLUGIN_log_level="INFO").hint
    assert refusal(host, {"PLUGIN_QQQQ": 1}).hint == "Keys of your own do not begin with PLUGIN_."
    assert refusal(configure, qqqq=1).hint is None
    assert "PLUGIN_MAGIC_COOKIE_VALUE" in refusal(host, {"PLUGIN_MAGIC_COOKIE": "x"}).hint


@pytest.mark.parametrize(
    "name",
    [
        "INSECURE",
        "EXIT_ON_STOP",
        "CHANNEL_READY_TIMEOUT",
        "SERVER_READY_TIMEOUT",
        "BUFFER_SIZE",
        "TRANSPORT_BUFFER_SIZE",
        "CHUNK_SIZE",
        "MTLS_CERT_DIR",
        "CLIENT_CERT_FILE",
        "CLIENT_KEY_FILE",
        "CLIENT_RETRY_DELAY",
        "CLIENT_BACKOFF_MULTIPLIER",
        "CLIENT_MAX_RETRY_DELAY",
        "UI_ENABLED",
        "SHOW_EMOJI_MATRIX",
    ],
)
def test_a_name_that_is_gone_gets_the_way_to_say_it_now(name, caplog):
    for call in (host, plugin, lambda given: configure(**given)):
        error = refusal(call, {f"PLUGIN_{name}": "1"})
        assert error.hint
        assert "nearest" not in error.hint
    # Other programs use the prefix as well, so a variable is no error; but it is not passed over.
    with caplog.at_level(logging.WARNING, "pyvider_rpcplugin"):
        assert host(environ={f"PLUGIN_{name}": "1"}) == Settings()
    assert [f"PLUGIN_{name}" in record.getMessage() for record in caplog.records] == [True]


def test_what_is_given_has_to_be_a_mapping_of_names():
    assert "list" in refusal(host, ["PLUGIN_LOG_LEVEL"]).message
    assert "3" in refusal(host, {3: 4}).message


def test_the_port_range_must_not_be_empty():
    assert (host(min_port=5, max_port=5).min_port, host(max_port=9).max_port) == (5, 9)
    error = refusal(host, {"PLUGIN_MIN_PORT": 9})
    assert "PLUGIN_MIN_PORT" in error.message
    assert "PLUGIN_MAX_PORT" in error.message
    refusal(plugin, environ={"PLUGIN_MIN_PORT": "9", "PLUGIN_MAX_PORT": "8"})


@given(st.dictionaries(st.sampled_from(sorted(config._table())), st.text(), max_size=3))
def test_any_text_in_the_environment_gives_settings_or_a_config_error(variables):
    environ = {f"PLUGIN_{name.upper()}": text for name, text in variables.items()}
    for side in ("host", "plugin"):
        with contextlib.suppress(ConfigError):
            assert isinstance(load_settings(environ=environ, side=side), Settings)


def test_mutual_tls_may_be_switched_on_and_off_and_required():
    assert host(auto_mtls=True).auto_mtls is True
    assert host(auto_mtls=False).auto_mtls is False
    assert plugin(environ={"PLUGIN_AUTO_MTLS": "required"}).auto_mtls == "required"
    refusal(plugin, environ={"PLUGIN_AUTO_MTLS": "of course"})


# --- what a host says to its plugin


def test_a_plugin_keeps_its_own_versions_apart_from_what_is_offered():
    settings = plugin({"PLUGIN_PROTOCOL_VERSIONS": [5, 6, 7]}, environ=FROM_HOST)
    assert settings.protocol_versions == (5, 6, 7)
    assert settings.offered_versions == "6,5"
    assert (settings.min_port, settings.max_port) == (10000, 25000)
    assert plugin(environ={"PLUGIN_PROTOCOL_VERSIONS": "3,x,2"}).offered_versions == "3,x,2"
    assert plugin().offered_versions is None


def test_a_plugin_sees_the_hosts_certificate_and_no_certificate_of_its_own():
    settings = plugin(environ=FROM_HOST | {"PLUGIN_CLIENT_CERT": PEM})
    assert settings.host_certificate == PEM
    assert settings.client_cert == ""
    with_key = {"PLUGIN_CLIENT_CERT": PEM, "PLUGIN_CLIENT_KEY": PEM}
    assert plugin(environ=with_key).host_certificate is None
    assert plugin().host_certificate is None


def test_a_plugin_is_told_of_multiplexing_and_does_not_fail_for_it():
    settings = plugin(environ=FROM_HOST | {"PLUGIN_MULTIPLEX_GRPC": "true"})
    assert settings.multiplex_requested
    assert settings.multiplex_wanted
    assert not settings.multiplex_grpc
    assert not plugin().multiplex_requested
    unclear = plugin(environ=FROM_HOST | {"PLUGIN_MULTIPLEX_GRPC": "yes"})
    assert unclear.multiplex_requested
    assert not unclear.multiplex_wanted


def test_a_client_inside_a_plugin_does_not_take_its_hosts_words_for_its_own():
    environ = FROM_HOST | {
        "PLUGIN_CLIENT_CERT": PEM,
        "PLUGIN_UNIX_SOCKET_DIR": "/outer",
        "PLUGIN_UNIX_SOCKET_GROUP": "outer",
        "PLUGIN_MULTIPLEX_GRPC": "true",
        "PLUGIN_LOG_LEVEL": "DEBUG",
    }
    assert host(environ=environ) == Settings(log_level="DEBUG")
    assert host(environ=FROM_HOST) == Settings()
    own = {"PLUGIN_PROTOCOL_VERSIONS": 2, "PLUGIN_UNIX_SOCKET_DIR": "/inner"}
    settings = host(own, environ=environ)
    assert (settings.protocol_versions, settings.unix_socket_dir) == ((2,), "/inner")


def test_a_host_on_its_own_takes_the_same_variables_as_its_settings():
    environ = {"PLUGIN_PROTOCOL_VERSIONS": "2", "PLUGIN_UNIX_SOCKET_DIR": "/d"}
    settings = host(environ=environ)
    assert (settings.protocol_versions, settings.unix_socket_dir) == ((2,), "/d")
    ports = host(environ={"PLUGIN_MIN_PORT": "1", "PLUGIN_MAX_PORT": "2"})
    assert (ports.min_port, ports.max_port) == (1, 2)
    assert host(environ={"PLUGIN_CLIENT_CERT": PEM}).client_cert == PEM


def test_a_plugins_environment_is_known_by_what_hosts_always_send():
    assert started_by_host(FROM_HOST)
    assert started_by_host({"PLUGIN_PROTOCOL_VERSIONS": "1", "PLUGIN_CLIENT_CERT": PEM})
    assert not started_by_host({"PLUGIN_PROTOCOL_VERSIONS": "1"})
    assert not started_by_host({"PLUGIN_MIN_PORT": "1", "PLUGIN_MAX_PORT": "2"})
    assert not started_by_host({"PLUGIN_CLIENT_CERT": PEM})


# --- the object


def test_settings_never_change():
    with pytest.raises(AttributeError):
        setattr(Settings(), "max_workers", 3)  # noqa: B010 - not for a type checker


def test_settings_show_what_is_not_default_and_no_secret():
    settings = Settings(
        max_workers=3, magic_cookie_value="hidden-secret", server_key=PEM, host_certificate=PEM
    )
    assert repr(settings) == (
        "Settings(magic_cookie_value='(secret)', server_key='(secret)', max_workers=3, "
        "host_certificate='(PEM)')"
    )
    assert "hidden-secret" not in str(settings)
    assert repr(Settings()) == "Settings()"


def test_settings_survive_copying_and_pickling():
    settings = Settings(max_workers=3, protocol_versions=(1, 2))
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings


# --- the documentation


def test_the_documented_table_is_the_one_of_the_code():
    text = DOCUMENT.read_text()
    assert settings_table() in text, (
        "docs/settings.md is out of date: put in what "
        "`python -c 'from pyvider_rpcplugin.config import *; print(settings_table())'` prints"
    )


def test_the_table_has_every_setting_with_its_side_once():
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(config._table())
    for row, (name, setting) in zip(rows, config._table().items(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5
        assert all(cells)
        assert cells[0] == f"PLUGIN_{name.upper()}"
        assert cells[3] == " ".join(side[0].upper() for side in setting.sides)


def test_every_name_in_the_tables_beside_is_a_setting():
    assert set(config._WIRE) <= set(config._table())
    assert not (set(config._GONE) | set(config._MISTAKEN)) & setting_names()
