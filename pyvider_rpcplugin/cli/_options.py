"""What several commands take, and how they end."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
import typer
from grpclib.exceptions import GRPCError
from rich.console import Console
from rich.markup import escape

from pyvider_rpcplugin.config import load_settings
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable

    from pyvider_rpcplugin.config import Settings

FAILED = 1
WRONG_USAGE = 2
_INTERRUPTED = 130
_LONGEST_LINE = 500

Command = Annotated[
    list[str], typer.Argument(help="The plugin's program and its arguments.", show_default=False)
]
Cookie = Annotated[
    str | None,
    typer.Option(
        "--cookie",
        metavar="NAME=VALUE",
        help="The cookie that the plugin wants; by default that of this library.",
    ),
]
Versions = Annotated[
    str | None,
    typer.Option("--versions", metavar="1,2", help="The versions that the host has."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="A variable for the plugin."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the host's: lower case, no prefix."
    ),
]
NoMTLS = Annotated[bool, typer.Option("--no-mtls", help="Do not encrypt the connection.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Time for the plugin's start.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Trio = Annotated[bool, typer.Option("--trio", help="Run on trio instead of asyncio.")]

# The plugin's own options are its own, from the first word on that is none of ours.
OF_A_PLUGIN = {"ignore_unknown_options": True, "allow_interspersed_args": False}

# Where nobody looks, lines are as long as they are.
console = Console(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _LONGEST_LINE
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class HostOptions(msgspec.Struct):
    """The host that a command is.

    Attributes:
        settings: Its settings, as keywords.
        env: Variables for the plugin.
    """

    settings: dict[str, Any]
    env: dict[str, str]

    def load(self) -> Settings:
        """The settings with their defaults.

        Raises:
            ConfigError: One of them is wrong.
        """
        return load_settings(None, overrides=self.settings, side="host")


def host_options(
    cookie: str | None,
    versions: str | None,
    env: Iterable[str] | None,
    assignments: Iterable[str] | None,
    no_mtls: bool,
    timeout: float | None,
) -> HostOptions:
    """Read the options that all commands with a plugin have."""
    settings: dict[str, Any] = pairs("--set", assignments)
    if cookie is not None:
        [(name, value)] = pairs("--cookie", [cookie]).items()
        settings |= {"magic_cookie_key": name, "magic_cookie_value": value}
    if versions is not None:
        settings["protocol_versions"] = versions
    if no_mtls:
        settings["auto_mtls"] = False
    if timeout is not None:
        settings["handshake_timeout"] = timeout
    return HostOptions(settings, pairs("--env", env))


def pairs(option: str, given: Iterable[str] | None) -> dict[str, str]:
    """Read what has the form NAME=VALUE.

    Raises:
        BadParameter: One has not.
    """
    found: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals or not name:
            msg = f"{one!r} is not NAME=VALUE"
            raise typer.BadParameter(msg, param_hint=option)
        found[name] = value
    return found


def run(body: Callable[[], Awaitable[int]], *, trio: bool, as_json: bool) -> None:
    """Run a command's own function, and end with the status that it returns."""
    with told_errors(as_json=as_json):
        status = anyio.run(body, backend="trio" if trio else "asyncio")
    raise typer.Exit(status)


@contextlib.contextmanager
def told_errors(*, as_json: bool) -> Generator[None]:
    """Print what goes wrong, and end with the status for it."""
    try:
        yield
    except ConfigError as exc:
        _tell(exc, exc.message, exc.hint, as_json=as_json)
        raise typer.Exit(WRONG_USAGE) from None
    except RPCPluginError as exc:
        _tell(exc, exc.message, exc.hint, as_json=as_json)
        raise typer.Exit(FAILED) from None
    except GRPCError as exc:
        _tell(exc, f"{exc.status.name}: {exc.message or 'no message'}", None, as_json=as_json)
        raise typer.Exit(FAILED) from None
    except OSError as exc:
        _tell(exc, str(exc), None, as_json=as_json)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _tell(error: Exception, message: str, hint: str | None, *, as_json: bool) -> None:
    if as_json:
        said: dict[str, Any] = {"error": message, "kind": type(error).__name__, "hint": hint}
        if isinstance(error, GRPCError):
            said["status"] = error.status.name
        sys.stderr.write(json.dumps(said) + "\n")
        return
    errors.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        errors.print(escape(hint), style="dim")


def print_json(value: Any) -> None:
    """Print something for a program: on one line, unless a person looks."""
    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data)
    sys.stdout.write(data.decode() + "\n")
    sys.stdout.flush()
