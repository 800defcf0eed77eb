"""Python modules out of .proto files, without having to know protoc and its plugins.

For build scripts: it runs programs and waits for them. Nothing at run time needs it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from .exception import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["StubKind", "generate"]

StubKind = Literal["grpclib", "grpcio", "betterproto2"]
"""Whose stubs and handlers' base classes are generated."""

_GRPCLIB: tuple[StubKind] = ("grpclib",)
_TOOLS = "pip install grpcio-tools"
_MOST_LINES = 4


def generate(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    kinds: Collection[StubKind] = _GRPCLIB,
    root: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Generate Python modules from all .proto files in a folder and below it.

    protoc comes with grpcio-tools where that is installed; otherwise it is looked for on the PATH.
    Either all modules are written or, if something is wrong, none. Those that are the same as
    before stay untouched.

    Args:
        folder: Where the .proto files are.
        out: Where the modules go, in the same folders below it; by default to `root`. It has to be
            a folder that Python imports from.
        kinds: Whose stubs and base classes: "grpclib" (`x_grpc.py`), "grpcio" (`x_pb2_grpc.py`) and
            "betterproto2" (a package of its own, with its messages). With the first two come the
            messages (`x_pb2.py`, and `x_pb2.pyi` for type checkers).
        root: What imports are relative to, in the .proto files and in the modules; by default
            `folder`. For files inside of a package: the folder that holds the package.

    Returns:
        The modules' paths, sorted.

    Raises:
        ProtocolError: There are no .proto files, one of them is wrong, or a tool is missing.
    """
    source = Path(folder)
    base = source if root is None else Path(root)
    target = base if out is None else Path(out)
    unknown = [kind for kind in kinds if kind not in get_args(StubKind)]
    if unknown or not kinds:
        message = (
            f"there are no stubs of the kind {unknown[0]!r}" if unknown else "no kind of stubs"
        )
        raise ProtocolError(message, f"kinds are: {', '.join(get_args(StubKind))}")
    files = _files_in(source, base)
    command = [*_protoc(), f"-I{base}"]
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as launchers:
        for kind in kinds:
            command += _arguments(kind, made, launchers)
        if set(kinds) & {"grpclib", "grpcio"}:
            command += [f"--python_out={made}", f"--pyi_out={made}"]
        _run([*command, *files])
        return _put(Path(made), target)


def _files_in(folder: Path, base: Path) -> list[str]:
    try:
        files = sorted(path.relative_to(base).as_posix() for path in folder.rglob("*.proto"))
    except ValueError:
        message = f"{folder} is not below {base}, which imports would be relative to"
        raise ProtocolError(message) from None
    if not files:
        message = f"there is no .proto file in {folder}"
        raise ProtocolError(message)
    return files


def _protoc() -> list[str]:
    if _installed("grpc_tools"):
        return [sys.executable, "-m", "grpc_tools.protoc"]
    found = shutil.which("protoc")
    if found is None:
        message = "protoc is not there: neither grpcio-tools nor a program on the PATH"
        raise ProtocolError(message, _TOOLS)
    return [found]


def _arguments(kind: StubKind, out: str, launchers: str) -> list[str]:
    if kind == "grpclib":
        return [
            _plugin("grpclib_python", "grpclib", launchers),
            f"--grpclib_python_out={out}",
        ]
    if kind == "betterproto2":
        return [
            _plugin("python_betterproto2", "betterproto2_compiler", launchers),
            f"--python_betterproto2_out={out}",
            # The form that works on both loops.
            "--python_betterproto2_opt=client_generation=async,server_generation=async",
        ]
    if _installed("grpc_tools"):  # It has that built in.
        return [f"--grpc_python_out={out}"]
    found = shutil.which("grpc_python_plugin")
    if found is None:
        message = "what generates grpcio's stubs is not there"
        raise ProtocolError(message, _TOOLS)
    return [f"--plugin=protoc-gen-grpc_python={found}", f"--grpc_python_out={out}"]


def _plugin(name: str, distribution: str, launchers: str) -> str:
    """The argument that tells protoc where a plugin is."""
    program = f"protoc-gen-{name}"
    found: str | None = None
    for entry in entry_points(group="console_scripts", name=program):
        # Where this interpreter's scripts are, protoc need not know.
        found = _launcher(f"{launchers}/{program}", entry.module, entry.attr)
    found = found or shutil.which(program)
    if found is None:
        message = f"the protoc plugin {program} is not there"
        raise ProtocolError(message, f"pip install {distribution}")
    return f"--plugin={program}={found}"


def _launcher(path: str, module: str, function: str) -> str:
    """Write a program that runs a function of a module with this interpreter; return its path."""
    code = f"from {module} import {function}; {function}()"
    if os.name == "nt":
        path += ".bat"
        text = f'@"{sys.executable}" -c "{code}"\n'
    else:
        text = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)}\n"
    launcher = Path(path)
    launcher.write_text(text)
    launcher.chmod(0o700)
    return path


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(  # noqa: S603 - protoc, with paths
        command, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = _last_lines(done.stderr.splitlines())
        message = f"protoc failed with status {done.returncode}"
        raise ProtocolError(message, said or None)


def _last_lines(lines: Iterable[str]) -> str:
    return "\n".join([line for line in lines if line.strip()][-_MOST_LINES:])


def _put(made: Path, target: Path) -> list[Path]:
    """Move what was generated to where it belongs."""
    written = []
    for path in sorted(made.rglob("*")):
        if path.is_dir():
            continue
        goal = target / path.relative_to(made)
        content = path.read_bytes()
        if not goal.is_file() or goal.read_bytes() != content:
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(content)
        written.append(goal)
    return written
