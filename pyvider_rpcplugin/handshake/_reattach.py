"""The record by which a host finds a plugin that runs already, and its JSON.

The keys are those that hosts in Go use, so that either side may have written it::

    {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": 4711, "Test": true,
     "Addr": {"Network": "unix", "String": "/tmp/plugin123"}}

What such hosts have no key for stands under keys of its own, which they pass over: the material
of TLS ("ServerCert", "ClientCert" and "ClientKey"), and what tells the process from a later one
with the same number ("Started") and how it can be signalled ("Group"). Each is left out where there
is nothing to say.

Terraform reads the records of several plugins, by the address of the provider, from the variable
TF_REATTACH_PROVIDERS; other programs do the same under other names.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import msgspec

from pyvider_rpcplugin.exception import ConfigError

from ._line import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ReattachConfig", "format_reattach_providers", "parse_reattach_providers"]


class ReattachConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where a plugin that runs already is found, and what it speaks.

    A running client gives one, and so does a plugin that is served for debugging; a client that is
    made with it attaches to that plugin instead of starting one.

    Attributes:
        network: "unix" or "tcp".
        address: The path of the socket, or "host:port".
        pid: The plugin's process number; 0: not known.
        protocol_version: The version of the application's protocol that it serves; 0: not known,
            as in the records of hosts in Go.
        test: The plugin is run by somebody else, who also ends it: a host leaves it running.
        protocol: What is spoken; "grpc" is all there is here.
        server_cert: With TLS: the plugin's certificate, as PEM.
        client_cert: With mutual TLS: the host's certificate, as PEM.
        client_key: The private key of that; never shown, but part of the JSON.
        started: When the process started, as its system counts; 0: not known. Another process
            that got the same number later has another one.
        group: The process leads a group of processes, which is ended together with it.

    Raises:
        ConfigError: Something in it is not what it has to be.
    """

    network: Literal["unix", "tcp"]
    address: str
    pid: int = 0
    protocol_version: int = 0
    test: bool = False
    protocol: str = "grpc"
    server_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    started: int = 0
    group: bool = False

    def __post_init__(self) -> None:
        """Check what types alone do not tell."""
        network: object = self.network
        if network not in NETWORKS:
            _refuse(f"its network is {network!r:.60}", "Known are unix and tcp.")
        if not self.address or "\0" in self.address:
            _refuse("its address is empty or has a null character in it")
        if self.protocol != "grpc":
            _refuse(
                f"its protocol is {self.protocol!r:.60}",
                "Only plugins that speak gRPC can be used.",
            )
        if self.pid < 0 or self.protocol_version < 0:
            _refuse("a number in it is negative")
        if (self.client_cert is None) != (self.client_key is None):
            _refuse("a client's certificate and its key come together, or not at all")

    def __repr__(self) -> str:
        shown = [f"{self.network}:{self.address}", f"protocol_version={self.protocol_version}"]
        if self.pid:
            shown.append(f"pid={self.pid}")
        if self.test:
            shown.append("test")
        if self.server_cert is not None:
            shown.append("tls" if self.client_cert is None else "mutual tls")
        return f"<ReattachConfig {' '.join(shown)}>"

    def to_json(self) -> str:
        """Return it as one line of JSON. With mutual TLS, a private key is in it."""
        return msgspec.json.encode(_to_wire(self)).decode()

    def to_dict(self) -> dict[str, Any]:
        """Return what `to_json` writes, as a dictionary."""
        found: dict[str, Any] = msgspec.to_builtins(_to_wire(self))
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReattachConfig:
        """Read it from what JSON of it was read to.

        Raises:
            ConfigError: It is no such record.
        """
        return _from_wire(_read(functools.partial(msgspec.convert, dict(values)), _Wire))

    @classmethod
    def from_json(cls, text: str | bytes) -> ReattachConfig:
        """Read it from JSON. Keys that are not known are passed over.

        Raises:
            ConfigError: It is no such record.
        """
        return _from_wire(_decode(text, _Wire))


def format_reattach_providers(records: Mapping[str, ReattachConfig]) -> str:
    """Return records of several plugins as one line of JSON, by the plugins' names."""
    return msgspec.json.encode(
        {name: _to_wire(record) for name, record in records.items()}
    ).decode()


def parse_reattach_providers(text: str | bytes) -> dict[str, ReattachConfig]:
    """Read the records of several plugins, as they stand in TF_REATTACH_PROVIDERS.

    Raises:
        ConfigError: There is something else in it.
    """
    found: dict[str, _Wire] = _decode(text, dict[str, _Wire])
    records: dict[str, ReattachConfig] = {}
    for name, wire in found.items():
        try:
            records[name] = _from_wire(wire)
        except ConfigError as exc:
            msg = f"{name!r:.200}: {exc.message}"
            raise ConfigError(msg, exc.hint, phase="attach") from None
    return records


class _Address(msgspec.Struct, rename="pascal"):
    network: str
    string: str


class _Wire(msgspec.Struct, rename="pascal", kw_only=True):
    # What a host in Go leaves out or has empty is its zero value. An empty protocol is one of
    # them: it means the kind of plugin that came before gRPC.
    protocol: str = ""
    protocol_version: int = 0
    pid: int = 0
    test: bool = False
    addr: _Address
    server_cert: str | msgspec.UnsetType = msgspec.UNSET
    client_cert: str | msgspec.UnsetType = msgspec.UNSET
    client_key: str | msgspec.UnsetType = msgspec.UNSET
    started: int | msgspec.UnsetType = msgspec.UNSET
    group: bool | msgspec.UnsetType = msgspec.UNSET


def _to_wire(record: ReattachConfig) -> _Wire:
    return _Wire(
        protocol=record.protocol,
        protocol_version=record.protocol_version,
        pid=record.pid,
        test=record.test,
        addr=_Address(record.network, record.address),
        server_cert=record.server_cert or msgspec.UNSET,
        client_cert=record.client_cert or msgspec.UNSET,
        client_key=record.client_key or msgspec.UNSET,
        started=record.started or msgspec.UNSET,
        group=record.group or msgspec.UNSET,
    )


def _from_wire(wire: _Wire) -> ReattachConfig:
    return ReattachConfig(
        network=cast("Literal['unix', 'tcp']", wire.addr.network),
        address=wire.addr.string,
        pid=wire.pid,
        protocol_version=wire.protocol_version,
        test=wire.test,
        protocol=wire.protocol,
        server_cert=wire.server_cert or None,
        client_cert=wire.client_cert or None,
        client_key=wire.client_key or None,
        started=wire.started or 0,
        group=wire.group or False,
    )


def _decode(text: str | bytes, kind: Any) -> Any:
    return _read(functools.partial(msgspec.json.decode, text), kind)


def _read(decode: Callable[..., Any], kind: Any) -> Any:
    try:
        return decode(type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # What msgspec says names the place and the types, never the value.
        msg = f"this is no record of a running plugin: {exc}"
        hint = 'It looks like {"Protocol": "grpc", "ProtocolVersion": 1, "Pid": 1, "Test": true, '
        hint += '"Addr": {"Network": "unix", "String": "/path"}}.'
        raise ConfigError(msg, hint, phase="attach") from None


def _refuse(reason: str, hint: str | None = None) -> NoReturn:
    msg = f"the record of a running plugin is wrong: {reason}"
    raise ConfigError(msg, hint, phase="attach")
