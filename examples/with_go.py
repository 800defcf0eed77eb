"""Runs an example whose other side is a program in Go that others wrote.

    python examples/with_go.py terraform_provider_random [asyncio|trio]
    python examples/with_go.py tflint_ruleset [asyncio|trio]
    python examples/with_go.py terraform_provider [asyncio|trio]

The first run builds that program with Go, and makes Python modules of its protocol, in the user's
cache folder. Both come through Go's module proxy, and protoc from Python's package index. Neither
the protocol nor what is made of it is part of this repository: they are under licences of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
# The largest program takes five minutes of processor time, and the machine may be busy.
PATIENCE = 2400
# The modules that this release of protoc makes work with every protobuf from 4.25 on.
PROTOC = [
    "grpcio-tools == 1.62.3; python_version < '3.13'",
    "setuptools < 80; python_version < '3.13'",
    "grpcio-tools >= 1.70; python_version >= '3.13'",
    "grpclib == 0.4.9",
]


class Impossible(Exception):
    """The example cannot be prepared here; the text says why."""


@dataclass(frozen=True)
class Needs:
    """What an example needs: a program, and the protocol in which one talks to it."""

    # The module in Go, and the folder in it.
    program: str
    version: str
    # The module in Go, and the file in it.
    protocol: str
    proto: str
    package: str = "."


EXAMPLES = {
    # This is the commit of the release 3.6.0: the module's name does not end as Go wants it of a
    # release 3, so that only its commits can be had.
    "terraform_provider_random": Needs(
        program="github.com/terraform-providers/terraform-provider-random",
        version="v1.3.2-0.20231204135814-c6e90de46687",
        protocol="github.com/hashicorp/terraform-plugin-go@v0.19.1",
        proto="tfprotov5/internal/tfplugin5/tfplugin5.proto",
    ),
    "tflint_ruleset": Needs(
        program="github.com/terraform-linters/tflint",
        version="v0.64.0",
        protocol="github.com/terraform-linters/tflint-plugin-sdk@v0.25.0",
        proto="plugin/internal/proto/tflint.proto",
    ),
    "terraform_provider": Needs(
        program="github.com/opentofu/opentofu",
        version="v1.12.6",
        protocol="github.com/hashicorp/terraform-plugin-go@v0.19.1",
        proto="tfprotov6/internal/tfplugin6/tfplugin6.proto",
        package="./cmd/tofu",
    ),
}


@dataclass(frozen=True)
class Prepared:
    """The program, and the folder of the modules in Python."""

    program: Path
    modules: Path


def prepare(name: str) -> Prepared:
    """Build what an example needs, unless that was done before.

    Raises:
        Impossible: Something is missing here, or cannot be fetched.
    """
    needs = EXAMPLES[name]
    modules = prepare_modules(name)
    program = program_of(name)
    with locked(cache_of(name)):
        if not is_prepared(name):
            build(needs, program)
            made(program).write_text(repr(needs))
    return Prepared(program, modules)


def prepare_modules(name: str) -> Path:
    """Make the modules of an example's protocol, unless that was done before: the folder.

    Raises:
        Impossible: Something is missing here, or cannot be fetched.
    """
    modules = modules_of(name)
    with locked(cache_of(name)):
        if not has_modules(name):
            generate(EXAMPLES[name], modules)
            made(modules).write_text(repr((EXAMPLES[name], PROTOC)))
    return modules


def is_prepared(name: str) -> bool:
    """Whether the program that an example needs has been built before."""
    mark = made(program_of(name))
    return mark.exists() and mark.read_text() == repr(EXAMPLES[name])


def has_modules(name: str) -> bool:
    """Whether the modules that an example needs have been made before."""
    mark = made(modules_of(name))
    return mark.exists() and mark.read_text() == repr((EXAMPLES[name], PROTOC))


def modules_of(name: str) -> Path:
    """Where the modules of an example's protocol are, once they are made."""
    return cache_of(name) / "modules"


def program_of(name: str) -> Path:
    """Where the program of an example is, once it is built."""
    needs = EXAMPLES[name]
    called = needs.program if needs.package == "." else needs.package
    return cache_of(name) / "bin" / called.rpartition("/")[2]


def made(what: Path) -> Path:
    """The file that says of what a program or a folder was made."""
    return what.with_name(f"{what.name}.made")


def cache_of(name: str) -> Path:
    """The folder where what an example needs is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "pyvider-rpcplugin" / "examples" / name


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time be busy with a folder."""
    import fcntl  # noqa: PLC0415 - not on every system

    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(needs: Needs, program: Path) -> None:
    """Build the program in Go, without what only a debugger needs."""
    # Within the module, and not by `go install`: that refuses modules which replace others.
    source = download(f"{needs.program}@{needs.version}")
    run(
        go(), "build", "-C", source, "-buildvcs=false", "-ldflags=-s -w",
        "-o", program, needs.package,
    )  # fmt: skip


def download(module: str) -> Path:
    """Fetch a module in Go: its folder."""
    return Path(json.loads(run(go(), "mod", "download", "-json", module))["Dir"])


def generate(needs: Needs, folder: Path) -> None:
    """Make modules in Python of the protocol."""
    source = download(needs.protocol)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as tools:
        run(sys.executable, "-m", "venv", tools)
        tool = Path(tools) / "bin"
        run(tool / "pip", "install", "--quiet", *PROTOC)
        proto = source / needs.proto
        run(
            tool / "python", "-m", "grpc_tools.protoc", f"-I{proto.parent}",
            f"--python_out={folder}", f"--pyi_out={folder}", f"--grpclib_python_out={folder}",
            proto, env={"PATH": f"{tool}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip


def go() -> str:
    """Return the path of the tool of Go."""
    found = shutil.which("go")
    if found is None:
        msg = "Go is not here: `go` is not on the PATH"
        raise Impossible(msg)
    return found


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a tool, away from any project, and return what it prints."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE,
            cwd=tempfile.gettempdir(), env={**os.environ, **(env or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Impossible(str(exc)) from exc
    if done.returncode:
        msg = f"`{shlex.join(map(str, command))}` failed: {done.stderr.strip()[-2000:]}"
        raise Impossible(msg)
    return done.stdout


def python_path(prepared: Prepared) -> str:
    """Where the modules are found, and whatever else is found already."""
    return os.pathsep.join(filter(None, [str(prepared.modules), os.environ.get("PYTHONPATH")]))


def drive_provider(prepared: Prepared, loop: str) -> int:
    """Run the host in Python, which starts the provider."""
    host = HERE / "terraform_provider_random" / "host.py"
    return subprocess.run(
        [sys.executable, host, prepared.program, loop],
        check=False, env={**os.environ, "PYTHONPATH": python_path(prepared)},
    ).returncode  # fmt: skip


def run_tflint(prepared: Prepared, loop: str) -> int:
    """Run TFLint, which starts the plugin in Python."""
    here = HERE / "tflint_ruleset"
    with tempfile.TemporaryDirectory() as plugins:
        # TFLint starts what has this name, with no arguments.
        plugin = Path(plugins) / "tflint-ruleset-pets"
        command = shlex.join([sys.executable, str(here / "ruleset.py"), loop])
        modules = shlex.quote(python_path(prepared))
        plugin.write_text(f"#!/bin/sh\nPYTHONPATH={modules} exec {command}\n")
        plugin.chmod(0o700)
        return subprocess.run(
            [prepared.program, f"--chdir={here / 'pets'}", "--format=compact"],
            check=False, env={**os.environ, "TFLINT_PLUGIN_DIR": plugins},
        ).returncode  # fmt: skip


def run_tofu(prepared: Prepared, loop: str) -> int:
    """Run OpenTofu, which starts the provider in Python."""
    here = HERE / "terraform_provider"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run(
            [sys.executable, here / "package.py", folder / "mirror", loop],
            check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": python_path(prepared)},
        )  # fmt: skip
        mirror = (
            f'provider_installation {{\n  filesystem_mirror {{ path = "{folder}/mirror" }}\n}}\n'
        )
        (folder / "tofu.rc").write_text(mirror)
        # It writes where its configuration is.
        shutil.copytree(here / "texts", folder / "texts")
        for command in ["init"], ["apply", "-auto-approve"], ["destroy", "-auto-approve"]:
            ended = subprocess.run(
                [prepared.program, f"-chdir={folder / 'texts'}", *command, "-no-color"],
                check=False,
                env={
                    **os.environ, "TF_CLI_CONFIG_FILE": str(folder / "tofu.rc"),
                    "TF_VAR_folder": str(folder / "files"), "CHECKPOINT_DISABLE": "1",
                },
            ).returncode  # fmt: skip
            if ended:
                return ended
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run an example with a program in Go.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prepare", action="store_true", help="only build, and say what is where")
    what.add_argument("--modules", action="store_true", help="the same, of the protocols alone")
    what.add_argument("example", choices=EXAMPLES, nargs="?")
    parser.add_argument("loop", choices=["asyncio", "trio"], default="trio", nargs="?")
    options = parser.parse_args()
    try:
        if options.prepare or options.modules:
            for name in EXAMPLES:
                folder = prepare(name).modules if options.prepare else prepare_modules(name)
                print(name, folder, sep="\t")
            return 0
        prepared = prepare(options.example)
    except Impossible as exc:
        print(f"this cannot be done here: {exc}", file=sys.stderr)
        return 1
    runners = {
        "terraform_provider_random": drive_provider,
        "tflint_ruleset": run_tflint,
        "terraform_provider": run_tofu,
    }
    return runners[options.example](prepared, options.loop)


if __name__ == "__main__":
    sys.exit(main())
