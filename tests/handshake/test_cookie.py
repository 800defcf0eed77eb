from __future__ import annotations

import pytest

from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.exception import HandshakeError
from pyvider_rpcplugin.handshake import check_cookie

SETTINGS = Settings(magic_cookie_key="MY_PLUGIN", magic_cookie_value="hidden-secret")


def refusal(settings, environ):
    with pytest.raises(HandshakeError) as caught:
        check_cookie(settings, environ)
    error = caught.value
    assert "\n" not in error.message
    assert error.hint
    assert "secret" not in repr(error) + str(error)
    return error


@pytest.mark.parametrize("cookie", ["hidden-secret", "Käse", "\udcff"])
def test_the_right_cookie_passes(cookie):
    settings = Settings(magic_cookie_key="MY_PLUGIN", magic_cookie_value=cookie)
    check_cookie(settings, {"MY_PLUGIN": cookie, "OTHER": "x"})


@pytest.mark.parametrize("environ", [{}, {"MY_PLUGIN": ""}, {"my_plugin": "hidden-secret"}])
def test_a_plugin_run_by_hand_says_so_and_names_the_variable(environ):
    error = refusal(SETTINGS, environ)
    assert "MY_PLUGIN is not set" in error.message
    assert "The program that uses it starts it." in error.hint


@pytest.mark.parametrize(
    "cookie", ["hidden-secre", "hidden-secret ", "HIDDEN-SECRET", "\udcff", "?idden-secret"]
)
def test_another_cookie_is_refused_without_showing_either(cookie):
    error = refusal(SETTINGS, {"MY_PLUGIN": cookie})
    assert "MY_PLUGIN" in error.message
    assert "not the one of this plugin" in error.message


@pytest.mark.parametrize("empty", [{"magic_cookie_key": ""}, {"magic_cookie_value": ""}])
def test_a_plugin_without_a_cookie_is_its_authors_mistake(empty):
    error = refusal(Settings(**empty), {"": "", "PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie"})
    assert "author" in error.hint
