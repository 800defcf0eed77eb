"""What is easily done wrong at first: the error says what it was, and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    PluginExit,
    ProtocolError,
    RPCPluginError,
    TransportError,
    plugin_client,
)
from pyvider_rpcplugin.config import load_settings
from pyvider_rpcplugin.handshake import HandshakeReader, check_cookie, parse_handshake_line
from pyvider_rpcplugin.protocol import register
from pyvider_rpcplugin.rpc import Server
from pyvider_rpcplugin.testing import connected


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}."


async def test_a_call_of_a_client_that_was_not_started_says_how_to_start_it() -> None:
    client = plugin_client([sys.executable, "plugin.py"])
    with pytest.raises(RPCPluginError) as caught:
        await client.proxy(Greeter).hello("Ada")
    assert "async with client" in (caught.value.hint or "")


def test_a_with_that_lacks_its_async_says_so() -> None:
    client: Any = plugin_client([sys.executable, "plugin.py"])
    with pytest.raises(TypeError, match=r"`async with`.*plugin_client_sync"):
        with client:
            pass


async def test_a_command_in_one_string_is_shown_as_a_list() -> None:
    with pytest.raises(ConfigError) as caught:
        await plugin_client("python plugin.py").start()
    assert "['python', 'plugin.py']" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("file", "advice"), [("plugin.py", '["python", "plugin.py"]'), ("plugin", '["./plugin"]')]
)
async def test_a_program_in_the_working_folder_is_not_on_the_path(
    tmp_path: Path, file: str, advice: str
) -> None:
    (tmp_path / file).touch()
    with pytest.raises(TransportError) as caught:
        await plugin_client([file], cwd=tmp_path).start()
    assert advice in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("end", "advice"),
    [
        (None, "Does the command start a plugin"),
        (PluginExit(0, ()), "plugin_server(...).run()"),
        (PluginExit(1, ("no database",)), "Its standard error says why"),
        (PluginExit(1, ()), "nothing on its standard error"),
        (PluginExit(2, ("python: can't open file '/x.py'",)), "Path(__file__).with_name"),
        (PluginExit(1, ("No module named 'pyvider_rpcplugin'",)), "sys.executable"),
        (PluginExit(1, ("This binary is a plugin. These", "are")), "a cookie that is not theirs"),
    ],
)
def test_a_plugin_that_ends_without_its_line_gets_advice_by_how_it_ended(
    end: PluginExit | None, advice: str
) -> None:
    assert advice in (HandshakeReader().failure(end).hint or "").splitlines()[0]


def test_text_in_front_of_the_handshake_line_is_named() -> None:
    reader = HandshakeReader()
    reader.feed(b"loading1|1|unix|/tmp/x.sock|grpc\n")
    assert reader.line is not None
    with pytest.raises(HandshakeError) as caught:
        parse_handshake_line(reader.line, versions=[1])
    assert "'loading' just before it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("protocol", "handler", "said", "advice"),
    [
        (None, Greeter, "the class Greeter, not an object of it", "handler=Greeter()"),
        (None, None, "there is no handler", "plugin_server(handler=...)"),
        (Greeter(), None, "a Greeter is no protocol", "plugin_server(handler=...)"),
    ],
)
async def test_what_is_given_in_place_of_a_handler_is_named(
    protocol: Any, handler: Any, said: str, advice: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        await register(Server(), protocol, handler)
    assert said in caught.value.message
    assert advice in (caught.value.hint or "")


def test_a_plugin_whose_host_has_another_cookie_names_its_own() -> None:
    settings = load_settings(None, overrides={"magic_cookie_key": "SHOP"}, side="plugin")
    with pytest.raises(HandshakeError) as caught:
        check_cookie(settings, {"PLUGIN_PROTOCOL_VERSIONS": "1", "PLUGIN_MAGIC_COOKIE": "x"})
    assert "a host started this plugin without its cookie" in caught.value.message
    assert "--cookie SHOP=VALUE" in (caught.value.hint or "")


class Point:
    """What msgspec cannot write: no dataclass."""


class Map:
    async def find(self, where: Point) -> None: ...

    async def here(self) -> Point:
        return Point()


async def test_an_object_of_a_plain_class_is_told_what_its_class_should_be() -> None:
    async with connected(Map()) as client:
        places = client.proxy(Map)
        for call in (lambda: places.find(Point()), places.here):
            with pytest.raises(GRPCError, match=r"of type Point is unsupported; make .* dataclass"):
                await call()


@pytest.mark.process
def test_a_host_that_imports_a_plugin_without_its_guard_is_told_which(tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(
        "from pyvider_rpcplugin import plugin_server\nplugin_server(handler=object()).run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import unguarded"],
        cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        'unguarded calls run() while it is imported: put that below if __name__ == "' in done.stderr
    )
