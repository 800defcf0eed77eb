"""Plugins by their names: where they are looked for, and what is shown of them."""

from __future__ import annotations

import functools
import logging
import operator
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pyvider_rpcplugin import InstalledPlugins, PluginProgram, discover
from pyvider_rpcplugin.process import checked

from ._options import console, errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyvider_rpcplugin import EnvironmentProgress

    from ._options import HostOptions

ENTRY_POINTS = "entry-points"

Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PLACE]...",
        help="A folder with manifests; a pattern for programs, as folder/name-*; a virtual "
        f"environment; or {ENTRY_POINTS} for the environment of this command, which is the default.",
        show_default=False,
    ),
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="PLACE",
        help="The command is the name of a plugin that is installed there: see `list`.",
    ),
]


def find(places: Sequence[str]) -> InstalledPlugins:
    """Look for plugins in all places.

    Raises:
        ConfigError: One is none.
    """
    # Here it is printed, and not in the words of a log.
    logging.getLogger("pyvider_rpcplugin.discovery").setLevel(logging.ERROR)
    return functools.reduce(operator.or_, [_look_in(place) for place in places or [ENTRY_POINTS]])


def _look_in(place: str) -> InstalledPlugins:
    if place == ENTRY_POINTS:
        return discover(entry_points=True, on_progress=_tell)
    folder, name = os.path.split(place)
    if {"*", "?", "["} & set(name) and not os.path.isdir(place):
        return discover(name, folder, on_progress=_tell)
    if os.path.exists(os.path.join(place, "pyvenv.cfg")):
        return discover(environments=[place])
    return discover(folder=place, on_progress=_tell)


def _tell(step: EnvironmentProgress) -> None:
    if errors.is_terminal:
        errors.print(escape(f"{step.plugin}: {step.line or step.kind}"), style="dim")


def chosen(command: list[str], places: list[str] | None) -> list[str] | PluginProgram:
    """What a command is to start: the words that were given, or the plugin that they name.

    Raises:
        ConfigError: There is no such plugin.
    """
    if not places:
        return command
    if len(command) != 1:
        msg = "with --from, the command is the name of one plugin"
        raise typer.BadParameter(msg)
    return find(places)[command[0]]


async def words_of(program: list[str] | PluginProgram, options: HostOptions) -> list[str]:
    """The words that start it, with the variables that go with them among the options.

    Raises:
        SecurityError: The program does not have the checksum that its manifest says.
        RPCPluginError: Its environment cannot be made.
    """
    if not isinstance(program, PluginProgram):
        return program
    prepared = await program.prepare()
    # The words alone say nothing of a checksum to who starts them.
    async with checked(prepared.command, program.secure, os.environ, None):
        options.env = {**prepared.env, **options.env}
        return prepared.command


def listed(found: InstalledPlugins) -> dict[str, Any]:
    """What there is to say of them, as JSON can hold it."""
    plugins = [
        {
            "name": one.name,
            "version": one.version,
            "description": one.description,
            "protocol_versions": one.protocol_versions,
            "checksum": one.secure is not None,
            "source": one.source,
            "path": one.path,
        }
        for one in found.values()
    ]
    wrong = [{"error": one.message, "hint": one.hint} for one in found.errors]
    return {"plugins": plugins, "errors": wrong}


def show(found: InstalledPlugins) -> None:
    """Show them to a person."""
    if found:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("name", "version", "versions", "found as", "where", "description"):
            table.add_column(title, header_style="cyan", overflow="fold")
        for one in found.values():
            versions = ", ".join(str(version) for version in one.protocol_versions)
            row = (one.name, one.version, versions, one.source, one.path, one.description)
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    elif not found.errors:
        console.print("No plugins are installed there.")
    for error in found.errors:
        console.print(f"[red]wrong:[/red] {escape(error.message)}")
        if error.hint:
            console.print(escape(error.hint), style="dim")
