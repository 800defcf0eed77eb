from __future__ import annotations

import inspect
from typing import Any

import pytest

from pyvider_rpcplugin import (
    ProtocolError,
    RPCPluginClient,
    RPCPluginProtocol,
    RPCPluginServer,
    plugin_client,
    plugin_protocol,
    plugin_server,
)


def test_the_documented_parameters_come_first_and_may_be_positional() -> None:
    def names(function: Any) -> list[str]:
        return [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]

    assert names(plugin_server) == [
        "protocol", "handler", "transport", "host", "port", "transport_path", "config",
    ]  # fmt: skip
    assert names(plugin_client) == ["command", "config"]
    assert names(plugin_protocol)[0] == "service_name"
    assert list(inspect.signature(RPCPluginServer.stop).parameters) == ["self", "grace_period"]


def test_factories_only_make_objects() -> None:
    assert isinstance(plugin_client(["nothing"]), RPCPluginClient)
    assert isinstance(plugin_server(None, object()), RPCPluginServer)
    assert repr(plugin_client(["/usr/bin/x"])) == "<RPCPluginClient x not running>"
    assert repr(plugin_server()) == "<RPCPluginServer not listening>"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/opt/plugin"], "plugin"),
        (["/usr/bin/python3", "-u", "dir/greeter_plugin.py", "x"], "greeter_plugin"),
        (["python", "-m", "package.module"], "package.module"),
        (["python3.13", "-c", "code"], "python3.13"),
        ("text", "plugin"),
        (None, "plugin"),
    ],
)
def test_a_client_is_called_like_its_program(command: Any, name: str) -> None:
    assert plugin_client(command).name == name


class Plain(RPCPluginProtocol):
    async def get_grpc_descriptors(self) -> tuple[Any, str]:
        return None, self.service_name or ""

    async def add_to_server(self, server: Any, handler: Any) -> None: ...


class Named(Plain):
    def __init__(self, service_name: str, extra: int = 0) -> None:
        self.given = (service_name, extra)


class Open(Plain):
    def __init__(self, **kwargs: Any) -> None:
        self.given = kwargs


def test_a_protocol_class_gets_what_its_constructor_takes_and_the_rest_as_attributes() -> None:
    plain: Any = plugin_protocol(protocol_class=Plain, service_name="S")
    assert plain.service_name == "S"
    named: Any = plugin_protocol("S", protocol_class=Named, extra=3, descriptor_module=inspect)
    assert named.given == ("S", 3)
    assert named.service_name is None
    assert named.descriptor_module is inspect
    opened: Any = plugin_protocol("S", protocol_class=Open, anything=1)
    assert opened.given == {"service_name": "S", "anything": 1}


def test_options_without_a_class_to_take_them_are_refused() -> None:
    with pytest.raises(ProtocolError, match="no option 'anything'"):
        plugin_protocol("S", anything=1)
