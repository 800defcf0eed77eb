"""A plugin that breaks one rule of the contract, the one that its argument names."""

from __future__ import annotations

import os
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyvider_rpcplugin import crypto, plugin_server
from pyvider_rpcplugin.server import _server as server_module
from pyvider_rpcplugin.services import ServingStatus

# Any: its names are replaced here.
_server: Any = server_module
COOKIE = "PLUGIN_MAGIC_COOKIE"


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}."


def by_hand() -> bool:
    return os.environ.get(COOKIE) != "rpcplugin-default-cookie"


def everybody_is_trusted(settings, tls, **options):
    """As what it stands for, but without a look at the client's certificate."""
    found = crypto.plugin_tls(settings, tls, **options)
    if found.credentials is not None:
        found.credentials.context().verify_mode = ssl.CERT_NONE
        found.credentials.pinned = None
    return found


def leave_out(name: str) -> None:
    """Do not serve what has this class."""
    add = _server.Server.add_service

    def others(self, service, **options):
        if type(service).__name__ != name:
            add(self, service, **options)

    _server.Server.add_service = others


def main() -> None:
    mode = sys.argv[1]
    options: dict[str, Any] = {}
    match mode:
        case "serves without a cookie":
            os.environ[COOKIE] = "rpcplugin-default-cookie"
        case "status 0 without a cookie" if by_hand():
            sys.stderr.write("this is a plugin\n")
            sys.exit(0)
        case "speaks on stdout without a cookie" if by_hand():
            print("this is a plugin")
            sys.exit(1)
        case "says nothing without a cookie" if by_hand():
            sys.exit(1)
        case "noise before the line" if not by_hand():
            print("starting", flush=True)
        case "half a line" if not by_hand():
            print("1|1|unix", flush=True)
            signal.pause()
        case "no line":
            signal.pause()
        case "a version that nobody offered":
            _server.choose_version = lambda mine, offered: 7
        case "the lowest version":
            options["protocol_versions"] = [1, 2]
            _server.choose_version = lambda mine, offered: min(mine)
        case "a socket elsewhere":
            options["transport_path"] = os.path.join(tempfile.gettempdir(), f"else-{os.getpid()}")
        case "a port out of range":
            options["transport"] = "tcp"
            options["port"] = 9
            low = int(os.environ.pop("PLUGIN_MIN_PORT"))
            options["port"] = low - 1 - os.getpid() % 1000
        case "no certificate":
            options["auto_mtls"] = False
        case "everybody is let in":
            _server.plugin_tls = everybody_is_trusted
        case "no health service":
            options["health_service_enabled"] = False
        case "no service for output":
            leave_out("StdioService")
        case "no broker":
            leave_out("Broker")
        case "does not end when asked to":
            _server.ControllerService = lambda before, stop: original(before, lambda: None)
        case "ends at ctrl-c":
            options["ignore_sigint"] = False
        case "does not end at sigterm":
            _server._catch_signals = lambda *arguments: None
            signal.signal(signal.SIGTERM, lambda *_: None)
            signal.signal(signal.SIGINT, lambda *_: None)
    server: Any = plugin_server(handler=Greeter(), **options)
    address: list[str] = []
    match mode:
        case "is not well":
            server.health.set_status("plugin", ServingStatus.NOT_SERVING)
        case "knows every service":
            server.health._status = lambda service: ServingStatus.SERVING
        case "leaves its socket":
            greet = server._greet

            def note(*arguments):
                address.append(arguments[-1])
                greet(*arguments)

            server._greet = note
    server.run()
    if address:
        folder = Path(address[0]).parent
        folder.mkdir(exist_ok=True)
        Path(address[0]).touch()
    if mode == "status 3":
        sys.exit(3)


original = _server.ControllerService

if __name__ == "__main__":
    main()
