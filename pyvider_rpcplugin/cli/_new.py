"""The beginning of a plugin: its service, its program, a host for it, and tests of all three."""

from __future__ import annotations

import keyword
import secrets
import shutil
from pathlib import Path  # noqa: TC003 - typer reads it, by way of the commands
from typing import TYPE_CHECKING, Any, Literal

from pyvider_rpcplugin._version import __version__
from pyvider_rpcplugin.codegen import generate
from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Form = Literal["typed", "grpclib", "grpcio", "betterproto2"]

_PROTO = """\
syntax = "proto3";

package {name};

service {service} {{
  rpc Hello(HelloRequest) returns (HelloReply);
}}

message HelloRequest {{
  string name = 1;
}}

message HelloReply {{
  string text = 1;
}}
"""

_SERVICES: Mapping[Form, str] = {
    "typed": """\
class {service}:
    \"\"\"What the plugin does: its public async methods are called by hosts.\"\"\"

    async def hello(self, name: str) -> str:
        \"\"\"Greet somebody.\"\"\"
        return f"Hello, {{name}}!"
""",
    "grpclib": """\
from __future__ import annotations

from typing import TYPE_CHECKING

from {name}_grpc import {service}Base
from {name}_pb2 import HelloReply, HelloRequest

if TYPE_CHECKING:
    from grpclib.server import Stream


class {service}({service}Base):
    async def Hello(self, stream: Stream[HelloRequest, HelloReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(HelloReply(text=f"Hello, {{request.name}}!"))
""",
    "grpcio": """\
from {name}_pb2 import HelloReply, HelloRequest
from {name}_pb2_grpc import {service}Servicer


class {service}({service}Servicer):
    async def Hello(self, request: HelloRequest, context: object) -> HelloReply:
        return HelloReply(text=f"Hello, {{request.name}}!")
""",
    "betterproto2": """\
from {name}_api.{name} import HelloReply, HelloRequest, {service}Base


class {service}({service}Base):
    async def hello(self, message: HelloRequest) -> HelloReply:
        return HelloReply(text=f"Hello, {{message.name}}!")
""",
}

# What a host imports to call it, and how it does.
_CALLS: Mapping[Form, tuple[str, str]] = {
    "typed": ("from {name}_service import {service}", 'await client.proxy({service}).hello("Ada")'),
    "grpclib": (
        "from {name}_grpc import {service}Stub\nfrom {name}_pb2 import HelloRequest",
        '(await client.stub({service}Stub).Hello(HelloRequest(name="Ada"))).text',
    ),
    "grpcio": (
        "from {name}_pb2 import HelloRequest\nfrom {name}_pb2_grpc import {service}Stub",
        '(await client.stub({service}Stub).Hello(HelloRequest(name="Ada"))).text',
    ),
    "betterproto2": (
        "from {name}_api.{name} import HelloRequest, {service}Stub",
        '(await client.stub({service}Stub).hello(HelloRequest(name="Ada"))).text',
    ),
}

_NEEDS: Mapping[Form, str] = {
    "typed": "",
    "grpclib": "",
    "grpcio": ', "grpcio"',
    "betterproto2": ', "betterproto2"',
}

_FILES = {
    "{name}_service.py": "{served}",
    "{name}_cookie.py": """\
from typing import Any

# By this a host and its plugin know each other. It is no secret: it keeps people from starting
# plugins by hand, and hosts from starting what is none of theirs.
COOKIE: dict[str, Any] = {{
    "magic_cookie_key": "{upper}_PLUGIN",
    "magic_cookie_value": "{cookie}",
}}
""",
    "{name}_plugin.py": """\
from {name}_cookie import COOKIE
from {name}_service import {service}

from pyvider_rpcplugin import plugin_server

if __name__ == "__main__":
    plugin_server(handler={service}(), **COOKIE).run()
""",
    "{name}_host.py": """\
import sys
from pathlib import Path

import anyio
from {name}_cookie import COOKIE
{imports}

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("{name}_plugin.py")


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)], **COOKIE) as client:
        print({call})


if __name__ == "__main__":
    anyio.run(main)  # or with backend="trio"
""",
    "tests/test_{name}.py": """\
import sys
from pathlib import Path

from {name}_cookie import COOKIE
{tested}

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.testing import check_plugin, connected

PLUGIN = [sys.executable, str(Path(__file__).parents[1] / "{name}_plugin.py")]


async def test_in_this_process() -> None:
    async with connected({service}()) as client:
        assert {call} == "Hello, Ada!"


async def test_in_a_process_of_its_own() -> None:
    async with plugin_client(PLUGIN, **COOKIE) as client:
        assert {call} == "Hello, Ada!"


async def test_it_is_a_correct_plugin() -> None:
    report = await check_plugin(PLUGIN, **COOKIE)
    assert report.passed, str(report)
""",
    "pyproject.toml": """\
[build-system]
requires = ["setuptools >= 64"]
build-backend = "setuptools.build_meta"

[project]
name = "{dashed}"
version = "0.1.0"
requires-python = ">= 3.11"
# The releases before this one, under the same name, are another project's.
dependencies = ["pyvider-rpcplugin >= {version}"{needs}]

[project.optional-dependencies]
test = ["pytest >= 9"]

[tool.setuptools]
py-modules = [{modules}]
packages = [{packages}]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
anyio_mode = "auto"
""",
    "README.md": """\
# {name}

- `{name}_service.py`: what the plugin does.
- `{name}_plugin.py`: its program, which a host starts.
- `{name}_host.py`: a host that starts it and calls it: `python {name}_host.py`
- `tests`: `python -m pytest`; each test runs on asyncio and on trio

Look at it: `pyvider-rpcplugin inspect --cookie {upper}_PLUGIN={cookie} python {name}_plugin.py`
{more}""",
}

_MORE = """\
- `{name}.proto`: the messages. When it has changed: `pyvider-rpcplugin gen stubs . --kind {form}{out}`
"""


def make_project(folder: Path, name: str, form: Form) -> list[Path]:
    """Write the files of a new plugin.

    Args:
        folder: Where; it must not exist, or be empty.
        name: What it is called: its files' names begin with it.
        form: How its service is written.

    Returns:
        The files, sorted.

    Raises:
        ConfigError: The name cannot be one, or there is something in the folder.
        ProtocolError: What generates the code is not installed.
        OSError: A file cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        msg = f"{name!r} cannot be the name of a plugin's modules"
        raise ConfigError(msg, "take lower-case letters, digits and _", phase="new")
    if folder.exists() and any(folder.iterdir()):
        msg = f"there is something in {folder} already"
        raise ConfigError(msg, "take another folder", phase="new")
    words: dict[str, Any] = {
        "name": name,
        "upper": name.upper(),
        "dashed": name.replace("_", "-"),
        "service": "".join(part.capitalize() for part in name.split("_")),
        "cookie": secrets.token_hex(16),
        "needs": _NEEDS[form],
        "version": __version__,
        "form": form,
        "out": f" --out {name}_api" if form == "betterproto2" else "",
    }
    words["served"] = _SERVICES[form].format_map(words)
    words["imports"], words["call"] = (text.format_map(words) for text in _CALLS[form])
    own = f"from {name}_service import {words['service']}"
    words["tested"] = "\n".join(sorted({own, *words["imports"].split("\n")}))
    words["more"] = "" if form == "typed" else _MORE.format_map(words)
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if form != "typed":
            (folder / f"{name}.proto").write_text(_PROTO.format_map(words), encoding="utf-8")
            # The code of betterproto2 is a package of its own.
            generate(
                folder, folder / f"{name}_api" if form == "betterproto2" else None, kinds=[form]
            )
        words["modules"], words["packages"] = _modules(folder, name)
        for path, text in _FILES.items():
            file = folder / path.format_map(words)
            file.parent.mkdir(exist_ok=True)
            file.write_text(text.format_map(words), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir()
        raise
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _modules(folder: Path, name: str) -> tuple[str, str]:
    """The modules and packages to install, as the lists of TOML have them."""
    generated = [path.stem for path in folder.glob("*.py")]
    own = [f"{name}_{part}" for part in ("cookie", "host", "plugin", "service")]
    packages = [path.parent.relative_to(folder) for path in folder.rglob("__init__.py")]
    return (
        ", ".join(f'"{module}"' for module in sorted([*generated, *own])),
        ", ".join(f'"{".".join(package.parts)}"' for package in sorted(packages)),
    )
