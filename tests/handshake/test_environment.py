from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.handshake import build_environment

# What a plugin without any more finds in its environment.
PROTOCOL = {
    "PLUGIN_PROTOCOL_VERSIONS": "1",
    "PLUGIN_MIN_PORT": "10000",
    "PLUGIN_MAX_PORT": "25000",
    "PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie",
}
# What a host said to this process, were it a plugin.
OUTER = {
    "PLUGIN_PROTOCOL_VERSIONS": "6,5",
    "PLUGIN_MIN_PORT": "1",
    "PLUGIN_MAX_PORT": "2",
    "PLUGIN_CLIENT_CERT": "outer certificate",
    "PLUGIN_IDENTITY_PIPE": "7:14:99",
    "PLUGIN_UNIX_SOCKET_DIR": "/outer",
    "PLUGIN_UNIX_SOCKET_GROUP": "outer",
    "PLUGIN_MULTIPLEX_GRPC": "true",
}
FOR_ITSELF = {
    "PLUGIN_SERVER_UNIX_SOCKET_PATH": "/outer/socket",
    "PLUGIN_SERVER_PORT": "5000",
    "PLUGIN_SERVER_CERT": "/server.pem",
    "PLUGIN_SERVER_KEY": "/server.key",
    "PLUGIN_SHUTDOWN_FILE_PATH": "/stop",
}


def build(settings=None, *, base=None, **options):
    return build_environment(settings or Settings(), base=base or {}, **options)


def refusal(**options):
    with pytest.raises(ConfigError) as caught:
        build(**options)
    assert "\n" not in caught.value.message
    return str(caught.value)


def test_a_plugin_always_gets_the_protocols_variables():
    assert build() == PROTOCOL


def test_the_settings_decide_what_the_plugin_is_told():
    settings = Settings(
        protocol_versions=(5, 6),
        magic_cookie_key="MY_PLUGIN",
        magic_cookie_value="hello",
        min_port=0,
        max_port=9,
        unix_socket_dir="/d",
        unix_socket_group="g",
        multiplex_grpc=True,
        outlive_host=True,
        wait_for_debugger=True,
    )
    assert build(settings, certificate="PEM\n") == {
        "PLUGIN_PROTOCOL_VERSIONS": "5,6",
        "MY_PLUGIN": "hello",
        "PLUGIN_MIN_PORT": "0",
        "PLUGIN_MAX_PORT": "9",
        "PLUGIN_UNIX_SOCKET_DIR": "/d",
        "PLUGIN_UNIX_SOCKET_GROUP": "g",
        "PLUGIN_MULTIPLEX_GRPC": "true",
        "PLUGIN_OUTLIVE_HOST": "true",
        "PLUGIN_WAIT_FOR_DEBUGGER": "true",
        "PLUGIN_CLIENT_CERT": "PEM\n",
    }
    assert build(settings, versions=[8, 7])["PLUGIN_PROTOCOL_VERSIONS"] == "7,8"


def test_the_environment_of_the_process_is_inherited_and_not_changed(monkeypatch):
    monkeypatch.setitem(os.environ, "MINE", "1")
    before = dict(os.environ)
    built = build_environment(Settings())
    assert built == before | PROTOCOL
    built["MINE"] = "2"
    assert dict(os.environ) == before


def test_all_of_it_or_nothing_or_some_names_are_inherited():
    base = {"A": "1", "B": "2", "PLUGIN_CLIENT_CERT": "x"}
    assert build(base=base, inherit_env=True) == {"A": "1", "B": "2"} | PROTOCOL
    assert build(base=base, inherit_env=False) == PROTOCOL
    names = ["B", "C", "PLUGIN_CLIENT_CERT"]
    assert build(base=base, inherit_env=names) == {"B": "2"} | PROTOCOL
    assert "['PATH']" in refusal(inherit_env="PATH")


def test_the_callers_variables_win_over_inherited_ones():
    assert build(base={"A": "1", "B": "2"}, env={"A": "3"}) == {"A": "3", "B": "2"} | PROTOCOL
    assert build(env={"A": Path("/p")})["A"] == "/p"


def test_nobody_overrides_the_protocols_variables():
    env = dict.fromkeys(PROTOCOL, "mine")
    assert build(env=env) == PROTOCOL


def test_an_outer_hosts_words_do_not_reach_a_grandchild():
    assert build(base=OUTER | FOR_ITSELF | {"A": "1"}) == {"A": "1"} | PROTOCOL


def test_a_hosts_private_key_is_never_inherited():
    base = {"PLUGIN_CLIENT_CERT": "/c.pem", "PLUGIN_CLIENT_KEY": "/c.key"}
    assert build(base=base) == PROTOCOL


def test_what_is_meant_for_the_plugin_is_inherited_from_a_host_that_is_none_itself():
    assert build(base=FOR_ITSELF) == FOR_ITSELF | PROTOCOL
    assert build(base=OUTER, env=FOR_ITSELF) == FOR_ITSELF | PROTOCOL


def test_a_copy_of_the_environment_is_cleaned_like_the_environment():
    base = OUTER | FOR_ITSELF | {"A": "1", "PLUGIN_CLIENT_KEY": "key"}
    assert build(base=base, env=base | {"B": "2"}) == {"A": "1", "B": "2"} | PROTOCOL
    assert build(base=base, env=base, inherit_env=False) == {"A": "1"} | PROTOCOL


def test_a_frozen_hosts_own_libraries_are_not_its_plugins(monkeypatch):
    monkeypatch.setattr(sys, "_MEIPASS", "/unpacked", raising=False)
    frozen = {"A": "1", "LD_LIBRARY_PATH": "/unpacked"}
    assert build(base=frozen) == build(env=frozen, base=frozen) == {"A": "1"} | PROTOCOL
    frozen |= {"LD_LIBRARY_PATH": "/unpacked:/own", "LD_LIBRARY_PATH_ORIG": "/own"}
    restored = {"A": "1", "LD_LIBRARY_PATH": "/own"} | PROTOCOL
    assert build(base=frozen) == build(env=frozen, base=frozen) == restored
    assert build(env={"LD_LIBRARY_PATH": "/x"}, base=frozen)["LD_LIBRARY_PATH"] == "/x"


@pytest.mark.parametrize(
    "name", ["PLUGIN_CLIENT_CERT", "PLUGIN_CLIENT_KEY", "PLUGIN_MULTIPLEX_GRPC"]
)
def test_what_is_for_the_host_to_say_cannot_be_given_by_hand(name):
    message = refusal(env={name: "hidden-secret"})
    assert name in message
    assert "hidden-secret" not in message


def test_a_socket_folder_may_be_given_by_hand():
    assert build(env={"PLUGIN_UNIX_SOCKET_DIR": "/d"})["PLUGIN_UNIX_SOCKET_DIR"] == "/d"


@pytest.mark.parametrize("name", ["", "A=B", "A\0", 3])
def test_a_name_that_no_variable_can_have_is_an_error(name):
    assert "cannot be the name" in refusal(env={name: "x"})


@pytest.mark.parametrize("value", [None, 3, "hidden\0secret", ["x"]])
def test_a_value_that_no_variable_can_hold_is_an_error_that_does_not_show_it(value):
    message = refusal(env={"PASSWORD": value})
    assert "PASSWORD" in message
    assert "secret" not in message
