from __future__ import annotations

import copy
import pickle
import signal

import pytest

from pyvider_rpcplugin.exception import (
    ConfigError,
    HandshakeError,
    PluginExit,
    ProtocolError,
    RPCPluginError,
    SecurityError,
    TransportError,
)

ALL = [
    RPCPluginError,
    ConfigError,
    HandshakeError,
    ProtocolError,
    SecurityError,
    TransportError,
]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_plugin_error_and_keeps_what_it_was_given(kind):
    error = kind("it broke", "mend it", 7)
    assert isinstance(error, RPCPluginError)
    assert (error.message, error.hint, error.code) == ("it broke", "mend it", 7)
    assert (error.phase, error.exit) == (None, None)


def test_a_message_alone_leaves_the_rest_empty():
    error = RPCPluginError("it broke")
    assert (error.hint, error.code, error.exit_status, error.stderr_tail) == (None, None, None, ())


def test_a_code_stays_what_it_was_even_if_it_is_falsy():
    assert RPCPluginError("it broke", code=0).code == 0
    assert RPCPluginError("it broke", code="").code == ""


def test_the_text_is_the_message_and_then_the_hint():
    assert str(RPCPluginError("it broke")) == "it broke"
    assert str(RPCPluginError("it broke", hint="mend it")) == "it broke\nHint: mend it"


def test_a_message_of_several_lines_is_shown_as_one():
    error = RPCPluginError("it\nbroke")
    assert str(error) == "it broke"
    assert error.message == "it\nbroke"


def test_the_code_is_not_part_of_the_text():
    assert "42" not in str(RPCPluginError("it broke", code=42))


def test_a_config_error_is_a_value_error():
    with pytest.raises(ValueError, match="bad"):
        raise ConfigError("bad")


def test_an_error_tells_how_the_plugin_ended():
    error = HandshakeError("no line", exit=PluginExit(3, ("a", "b")), phase="handshake")
    assert error.exit_status == 3
    assert error.stderr_tail == ("a", "b")
    assert error.phase == "handshake"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("remake", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_survives_copying_and_pickling(kind, remake):
    error = kind("it broke", "mend it", "E7", phase="launch", exit=PluginExit(-9, ("last",)))
    error.add_note("seen twice")
    again = remake(error)
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-250, "was killed by signal 250"),
        (None, "has ended"),
    ],
)
def test_an_exit_says_how_it_happened(status, text):
    assert PluginExit(status).describe() == text


def test_the_last_lines_are_the_newest_and_not_blank():
    exit_ = PluginExit(1, ("one", "two", "", "three", "four", "  "))
    assert exit_.last_lines() == ("two", "three", "four")
    assert exit_.last_lines(1) == ("four",)
    assert exit_.last_lines(0) == ()
    assert PluginExit(1).last_lines() == ()
