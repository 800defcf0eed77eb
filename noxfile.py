"""What is run on the code. `nox` alone does what `.ci/run` does after the tests."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">= 2024.4"
nox.options.sessions = ["lint", "types", "go", "tests", "minimums", "wheel", "proto_check", "docs"]
nox.options.default_venv_backend = "virtualenv"

ROOT = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
OLDEST = PYTHONS[0]

GO_MODULES = [ROOT / "tests" / "interop" / "go", ROOT / "examples" / "kv" / "go"]

# The folder that is protoc's root, the file in it, what is generated from it, and where to, if it
# is not the root.
PROTOS: list[tuple[str, str, list[str], str | None]] = [
    (".", "tests/protos/echo.proto", ["python", "pyi", "grpclib_python", "grpc_python"], None),
    (
        ".",
        "tests/bench/protos/echo.proto",
        ["python", "pyi", "grpclib_python", "grpc_python"],
        None,
    ),
    ("tests/protos", "echo.proto", ["python_betterproto2"], "tests/forms/betterproto"),
    ("tests/protos", "echo.proto", ["python_betterproto2"], "tests/forms/betterproto_blocking"),
    ("examples/protobuf", "greeter.proto", ["python", "pyi", "grpclib_python"], None),
    ("examples/broker", "survey.proto", ["python", "pyi", "grpclib_python"], None),
    ("examples/kv", "kv.proto", ["python", "pyi", "grpclib_python"], None),
    ("examples/kv", "kv.proto", ["go", "go-grpc"], "examples/kv/go/kv"),
    (
        ".",
        "tests/interop/go/proto/peer.proto",
        ["python", "pyi", "grpclib_python", "go", "go-grpc"],
        None,
    ),
    # Itself made of a Python class, which a test compares it with.
    (".", "tests/interop/go/typedproto/inventory.proto", ["go", "go-grpc"], None),
]
PROTOC_OPTIONS = {
    "go": "paths=source_relative",
    "go-grpc": "paths=source_relative",
    "python_betterproto2": "client_generation=async,server_generation=async",
}
# Where its own defaults are what is wanted.
PLAIN = {"tests/forms/betterproto_blocking"}
# This release's protoc is that of protobuf 4.25. The modules that it makes have no check of the
# runtime's version, so that they work with all of them from there on: the tests run with the lowest
# and with the newest. It needs the pkg_resources of an old setuptools.
PROTOC = ["grpcio-tools == 1.62.3", "setuptools < 80", "grpclib == 0.4.9"]
PROTOC += ["betterproto2_compiler == 0.10.1"]
PROTOC_GO = [
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
]


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Style, spelling, and the layers."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run("lint-imports", "--no-cache")
    session.run("towncrier", "build", "--draft", silent=True)


@nox.session(python=OLDEST)
def types(session: nox.Session) -> None:
    """mypy on everything, pyright on what users see of the package."""
    session.install("-e", ".[test,types]")
    session.run("mypy")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "pyvider_rpcplugin")
    # Each example is a program of its own, with its folder as the place where imports are found, and
    # beside it that of the modules which are not part of this repository.
    made = session.run("python", "examples/with_go.py", "--modules", silent=True)
    modules = dict(line.split("\t") for line in str(made).splitlines())
    for example in sorted(ROOT.glob("examples/[a-z]*/")):
        with session.chdir(example):
            session.run(
                "mypy", "--config-file", str(ROOT / "pyproject.toml"), ".",
                env={"MYPYPATH": modules.get(example.name, "")},
            )  # fmt: skip


@nox.session(python=False)
def go(session: nox.Session) -> None:
    """The programs in Go that the tests talk to: how they are written, and what `go vet` finds."""
    for module in GO_MODULES:
        session.chdir(module)
        if unformatted := session.run("gofmt", "-l", ".", external=True, silent=True):
            session.error(f"run gofmt on:\n{unformatted}")
        session.run("go", "vet", "./...", external=True)


@nox.session(python=OLDEST)
def tofu(session: nox.Session) -> None:
    """Have OpenTofu run a provider in Python. To build OpenTofu takes minutes, the first time."""
    session.install("-e", ".[test]")
    session.run(
        "python", "-m", "pytest", "tests/examples/test_terraform_provider.py", *session.posargs,
        env={"INTEROP_TOFU": "required"},
    )  # fmt: skip


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, with the newest dependencies."""
    session.install("-e", ".[test]")
    everything = ["-m", "thorough or not thorough"]
    session.run("python", "-m", "pytest", "-n", "auto", *everything, *session.posargs)


@nox.session(python=OLDEST)
def minimums(session: nox.Session) -> None:
    """The tests, with the oldest dependencies that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = [requirement.replace(">=", "==") for requirement in project["dependencies"]]
    # The oldest anyio's pytest plugin uses names that pytest 9.1 warns of, and a warning is an error.
    # The grpcio-tools that goes with the oldest protobuf needs an old setuptools.
    session.install("-e", ".[test]", "pytest ~= 9.0.0", "setuptools < 80", *lowest)
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(python=OLDEST)
def changelog(session: nox.Session) -> None:
    """Show what the next version brings; with `-- build`, move it into docs/changelog.md."""
    session.install("towncrier >= 24.8")
    session.run("towncrier", "build", *(["--yes"] if "build" in session.posargs else ["--draft"]))


@nox.session(python=OLDEST)
def wheel(session: nox.Session) -> None:
    """Build the distributions; run a host and a plugin where there is nothing but the wheel."""
    session.install("build", "twine")
    work = Path(session.create_tmp()).resolve()
    dist, empty = work / "dist", work / "empty"
    for folder in (dist, empty):
        shutil.rmtree(folder, ignore_errors=True)
    # The wheel is built of the unpacked sdist.
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    [built] = dist.glob("*.whl")
    session.run("python", "-m", "venv", str(empty / "venv"))
    python = str(empty / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "-q", str(built), external=True)
    session.run(python, "-m", "pip", "check", external=True)
    session.chdir(empty)
    session.run(
        python, "-W", "error", "-c",
        "import pyvider_rpcplugin as first, pyvider.rpcplugin as second; assert first is second; "
        "assert all(getattr(first, name) for name in first.__all__)",
        external=True,
    )  # fmt: skip
    # The quick start, which runs on both loops, under each name of the package.
    for name in ("pyvider_rpcplugin", "pyvider.rpcplugin"):
        folder = empty / name.replace(".", "-")
        folder.mkdir()
        for file in (ROOT / "examples" / "quickstart").glob("*.py"):
            code = file.read_text(encoding="utf-8").replace("pyvider_rpcplugin", name)
            (folder / file.name).write_text(code, encoding="utf-8")
        host = str(folder / "host.py")
        said = str(session.run(python, "-W", "error", host, silent=True, external=True))
        if said.count("Hello, Ada!") != 2:
            session.error(f"the quick start said:\n{said}")


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """Build the site of the documentation. A warning, a link that leads nowhere: both are errors."""
    session.install("-e", ".[docs]")
    site = Path(session.create_tmp()) / "site"
    shutil.rmtree(site, ignore_errors=True)
    session.run("python", "-m", "sphinx", "-n", "-W", "--keep-going", "-E", "-q", "docs", str(site))
    session.log(f"{site}/index.html")


def generate(session: nox.Session, out: Path) -> list[Path]:
    """Generate all modules below `out`, and return their paths there."""
    session.install(*PROTOC)
    tools = Path(session.create_tmp()).resolve() / "go"
    for tool in PROTOC_GO:
        session.run("go", "install", tool, env={"GOBIN": str(tools)}, external=True)
    path = os.pathsep.join([str(tools), *(session.bin_paths or ()), os.environ["PATH"]])
    before = set(out.rglob("*"))
    for root, proto, kinds, elsewhere in PROTOS:
        target = out / (elsewhere or root)
        target.mkdir(parents=True, exist_ok=True)
        session.run(
            "python", "-m", "grpc_tools.protoc", f"-I{ROOT / root}",
            *(f"--{kind}_out={target}" for kind in kinds),
            *(
                f"--{kind}_opt={PROTOC_OPTIONS[kind]}"
                for kind in kinds
                if kind in PROTOC_OPTIONS and elsewhere not in PLAIN
            ),
            str(ROOT / root / proto), env={"PATH": path},
        )  # fmt: skip
    return sorted(path for path in set(out.rglob("*.*")) - before if path.is_file())


@nox.session(python=OLDEST)
def proto(session: nox.Session) -> None:
    """Generate the modules of the .proto files again."""
    generate(session, ROOT)


@nox.session(python=OLDEST)
def proto_check(session: nox.Session) -> None:
    """Fail if the generated modules are not what their .proto files say."""
    out = Path(session.create_tmp()) / "generated"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for path in generate(session, out):
        committed = ROOT / path.relative_to(out)
        if not committed.is_file() or committed.read_bytes() != path.read_bytes():
            session.error(f"{committed.relative_to(ROOT)} is out of date: run `nox -s proto`")


@nox.session(python=OLDEST)
def fuzz(session: nox.Session) -> None:
    """Try what parses the other side's bytes on inputs by chance; see `-- --help`."""
    session.install("-e", ".[test]", "atheris >= 3")
    session.run("python", "-m", "tests.fuzz", *session.posargs)
    session.run("python", "-m", "tests.fuzz", "--machines", "500")


@nox.session(python=OLDEST)
def chaos(session: nox.Session) -> None:
    """Kill, stop, cut and starve plugins and hosts by chance, under load; see `-- --help`."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session(python=OLDEST)
def plots(session: nox.Session) -> None:
    """Make the pictures and tables of docs/benchmarks.md of the results that `bench` wrote."""
    session.install("-e", ".[plots]")
    session.run("python", "-m", "tests.bench.plots", *session.posargs)


@nox.session(python=OLDEST)
def bench(session: nox.Session) -> None:
    """Measure the installed wheel beside other libraries; see `-- --help`."""
    session.install("build")
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), silent=True)
    [built] = dist.glob("*.whl")
    # The measured processes see the wheel and not the checkout: they run in a folder of their own.
    session.install("--force-reinstall", str(built), "grpcio >= 1.70")
    others = session.cache_dir / "bench"
    session.run("python", "-m", "tests.bench", "--environments", str(others), *session.posargs)
