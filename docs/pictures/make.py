"""Makes the pictures of the command line: `python docs/pictures/make.py [FOLDER]`.

What is in them has happened: plugins are started, called and looked at.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.exceptions import GRPCError
from msgspec.structs import replace
from rich.console import Console

from pyvider_rpcplugin import PoolPolicy, RestartPolicy, plugin_client
from pyvider_rpcplugin.admin import admin_socket
from pyvider_rpcplugin.cli import _app
from pyvider_rpcplugin.cli._doctor import diagnose
from pyvider_rpcplugin.cli._inspect import inspect_plugin, show
from pyvider_rpcplugin.cli._options import host_options
from pyvider_rpcplugin.cli._top import summary, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
GREETER = HERE.parents[1] / "examples" / "quickstart" / "greeter_plugin.py"
WIDTH = 92
BROKEN = """\
import sys

import numpy_financial  # which this environment lacks

from pyvider_rpcplugin import plugin_server
"""


def picture(folder: Path, name: str, command: str, draw: Callable[[Console], Any]) -> Path:
    """Save what is drawn as NAME.svg."""
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, highlight=False,
            color_system="truecolor",
        )  # fmt: skip
        draw(console)
        file = folder / f"{name}.svg"
        file.write_text(console.export_svg(title=f"pyvider-rpcplugin {command}", unique_id=name))
    return file


async def make_all(folder: Path) -> list[Path]:
    """Make all pictures in a folder, out of the plugins in the current one."""
    options = host_options(None, None, None, None, False, None)
    python = [os.path.basename(sys.executable)]  # It is found as a shell would find it.
    return [
        await inspected(folder, [*python, "greeter_plugin.py"], options),
        await diagnosed(folder, [*python, "pricing_plugin.py"], options),
        await watched(folder, [*python, "greeter_plugin.py"]),
    ]


async def inspected(folder: Path, command: list[str], options: Any) -> Path:
    """A plugin that works."""
    seen = await inspect_plugin(command, options)
    words = f"inspect {' '.join(command)}"
    return picture(folder, "inspect", words, lambda console: show(seen, console))


async def diagnosed(folder: Path, command: list[str], options: Any) -> Path:
    """One that does not."""
    diagnosis = await diagnose(command, options.load(), env=options.env)
    # Where this program's interpreter happens to be says nothing.
    here = str(Path(sys.executable).parent)
    facts = [replace(fact, note=fact.note.replace(here, "/usr/bin")) for fact in diagnosis.facts]
    diagnosis = replace(diagnosis, facts=facts)

    def draw(console: Console) -> None:
        before, _app.console = _app.console, console
        try:
            _app._show_diagnosis(diagnosis, has_plugin=True)
        finally:
            _app.console = before

    return picture(folder, "doctor", f"doctor {' '.join(command)}", draw)


class Greeter:
    """The plugin's interface."""

    async def hello(self, name: str, *, loud: bool = False) -> str:
        """Greet somebody."""
        raise NotImplementedError


async def watched(folder: Path, command: list[str]) -> Path:
    """The plugins of this very program, while it calls them."""
    pool = plugin_client(command, pool=PoolPolicy(size=2), restart=RestartPolicy())
    single = plugin_client([command[0], "translator_plugin.py"], restart=RestartPolicy())
    async with pool, single, admin_socket(pool, single, path="admin.sock") as shown:
        many, one = pool.proxy(Greeter), single.proxy(Greeter)
        async with single.events() as events:  # Something has happened before.
            os.kill(single.pid or 0, signal.SIGKILL)
            with contextlib.suppress(GRPCError):
                await one.hello("Ada")
            async for event in events:
                if event.kind == "started":
                    break
        before = shown.report()
        async with anyio.create_task_group() as tg:

            async def work(greeter: Greeter) -> None:
                while True:
                    await greeter.hello("Ada")

            for greeter in (many, many, many, one):
                tg.start_soon(work, greeter)
            await anyio.sleep(2)
            after = shown.report()
            tg.cancel_scope.cancel()
    seen = {**summary(before, after), "command": ("python", "shop.py")}
    return picture(folder, "top", "top", lambda console: console.print(table_of(seen)))


def main(folder: Path) -> list[Path]:
    """Make all pictures, and return their files."""
    target, before = folder.absolute(), Path.cwd()
    path = os.environ["PATH"]
    with tempfile.TemporaryDirectory() as place:
        for name in ("greeter_plugin.py", "translator_plugin.py"):
            shutil.copy(GREETER, Path(place, name))
        Path(place, "pricing_plugin.py").write_text(BROKEN)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
        os.chdir(place)
        try:
            return anyio.run(make_all, target)
        finally:
            os.chdir(before)
            os.environ["PATH"] = path


if __name__ == "__main__":
    for file in main(Path(sys.argv[1]) if sys.argv[1:] else HERE):
        sys.stdout.write(f"{file}\n")
