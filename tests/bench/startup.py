"""Measures start-up, memory, imports, many plugins, and how fast failures arrive."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.calls import rotated
from tests.bench.environments import child_variables
from tests.bench.processes import progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.environments import Environments

TIMEOUT = 60.0
FLOOR = "floor"
MANY = 50
# They take long, and waver less than one start does.
MOST_ROUNDS_OF_MANY = 3


class Starter(NamedTuple):
    """A host script and its plugin script."""

    name: str
    script: str
    """``scripts/<script>_host.py`` starts ``scripts/<script>_plugin.py``."""
    environment: str = "main"
    arguments: tuple[str, ...] = ()
    goals: tuple[tuple[str, float], ...] = ()
    """At most so many times the time of the other."""
    memory_goal: tuple[str, float] | None = None
    """At most so many times what the other's plugin takes."""
    auto_mtls: bool = False


STARTERS = {
    starter.name: starter
    for starter in [
        Starter(FLOOR, "floor"),
        Starter("floor-typed", "floor", arguments=("typed",)),
        Starter("grpcio", "grpcio"),
        Starter(
            "ours-asyncio",
            "ours",
            arguments=("asyncio",),
            goals=(("grpcio", 2.0), ("pyvider-rpcplugin-0.5.5", 0.6)),
            memory_goal=("pyvider-rpcplugin-0.5.5", 0.6),
        ),
        Starter(
            "ours-trio",
            "ours",
            arguments=("trio",),
            goals=(("grpcio", 2.0), ("pyvider-rpcplugin-0.5.5", 0.6)),
        ),
        Starter(
            "ours-tls-asyncio",
            "ours",
            arguments=("asyncio",),
            goals=(
                ("ours-asyncio", 1.25),
                ("pyvider-rpcplugin-0.5.5-tls", 0.5),
                ("python-plugin-0.1.0-tls", 0.75),
                (FLOOR, 1.4),
            ),
            memory_goal=("pyvider-rpcplugin-0.5.5-tls", 0.6),
            auto_mtls=True,
        ),
        Starter(
            "ours-tls-trio",
            "ours",
            arguments=("trio",),
            goals=(("ours-trio", 1.25),),
            auto_mtls=True,
        ),
        Starter(
            "typed-tls-asyncio",
            "typed",
            arguments=("asyncio",),
            goals=(
                ("pyvider-rpcplugin-0.5.5-tls", 0.4),
                ("python-plugin-0.1.0-tls", 0.75),
                ("floor-typed", 1.4),
            ),
            auto_mtls=True,
        ),
        Starter("pyvider-rpcplugin-0.5.5", "pyvider", "pyvider"),
        Starter("pyvider-rpcplugin-0.5.5-tls", "pyvider", "pyvider", auto_mtls=True),
        Starter("python-plugin-0.1.0", "pyplugin", "pyplugin"),
        Starter("python-plugin-0.1.0-tls", "pyplugin", "pyplugin", auto_mtls=True),
    ]
}

# By environment: what is imported, each in a new interpreter.
IMPORTS = {
    "nothing": ("main", "pass"),
    "pyvider_rpcplugin": ("main", "import pyvider_rpcplugin"),
    "our two factories": ("main", "from pyvider_rpcplugin import plugin_client, plugin_server"),
    "asyncio": ("main", "import asyncio"),
    "trio": ("main", "import trio"),
    "anyio": ("main", "import anyio"),
    "google.protobuf": ("main", "import tests.bench.protos.echo_pb2"),
    "a grpclib-generated module": ("main", "import tests.bench.protos.echo_grpc"),
    "grpclib.client, grpclib.server": ("main", "import grpclib.client, grpclib.server"),
    "grpc.aio": ("main", "import grpc.aio"),
    "pyvider.rpcplugin 0.5.5": ("pyvider", "import pyvider.rpcplugin"),
    "pyplugin 0.1.0": ("pyplugin", "import pyplugin"),
}


# What one of them may take at most in the plugin, in KiB.
IDLE_GOALS = {"stream": 12, "connection": 96}


class Samples(NamedTuple):
    """What was measured of several things in rounds."""

    values: dict[str, list[dict[str, Any]]]
    failures: dict[str, str]

    def median(self, name: str, field: str) -> float | None:
        """Return the median of one field, None where nothing was measured."""
        values = [value[field] for value in self.values.get(name, ())]
        return statistics.median(values) if values else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the medians."""
        medians = {
            name: {
                field: statistics.median(value[field] for value in values) for field in values[0]
            }
            for name, values in self.values.items()
            if values
        }
        return {"medians": medians, **self._asdict()}


class ScriptError(Exception):
    """A script failed."""


def measure_startup(
    starters: Sequence[Starter], environments: Environments, stage: Path, rounds: int
) -> Samples:
    """Start each plugin in each round, from a new host process each time."""
    samples = Samples({starter.name: [] for starter in starters}, {})
    # One round more, that is not counted: it fills the caches of compiled modules.
    for round_number in range(rounds + 1):
        progress(f"start-up: round {round_number} of {rounds}")
        for starter in rotated(starters, round_number):
            if starter.name in samples.failures:
                continue
            python = environments.python(starter.environment)
            if python is None:
                samples.failures[starter.name] = environments.failures[starter.environment]
                continue
            scripts = stage / "tests" / "bench" / "scripts"
            host, plugin = (str(scripts / f"{starter.script}_{x}.py") for x in ("host", "plugin"))
            command = [python, host, python, plugin, *starter.arguments]
            try:
                # The bare ones cannot do TLS, so those that can are told not to, mostly.
                auto_mtls = "true" if starter.auto_mtls else "false"
                value = run_script(command, stage, PLUGIN_AUTO_MTLS=auto_mtls)
            except ScriptError as error:
                samples.failures[starter.name] = str(error)
                continue
            if round_number:
                samples.values[starter.name].append(value)
    progress("")
    return samples


def measure_imports(environments: Environments, stage: Path, rounds: int) -> Samples:
    """Time a new interpreter that imports something and ends."""
    samples = Samples({name: [] for name in IMPORTS}, {})
    for round_number in range(rounds + 1):
        progress(f"imports: round {round_number} of {rounds}")
        for name in rotated(list(IMPORTS), round_number):
            environment, code = IMPORTS[name]
            python = environments.python(environment)
            if python is None:
                samples.failures[name] = environments.failures[environment]
            elif name not in samples.failures:
                start = time.perf_counter()
                result = subprocess.run(
                    [python, "-c", code],
                    cwd=stage,
                    env=child_variables(PYTHONPATH=str(stage)),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                )
                taken = time.perf_counter() - start
                if result.returncode:
                    samples.failures[name] = _last_line(result.stderr)
                elif round_number:
                    samples.values[name].append({"seconds": taken})
    progress("")
    return samples


def measure_many(environments: Environments, stage: Path, rounds: int) -> Samples:
    """Time the start of many plugins of one host, until all of them have replied."""
    hosts = {
        FLOOR: ("floor", ()),
        "ours-tls-asyncio": ("ours", ("asyncio",)),
        "ours-tls-trio": ("ours", ("trio",)),
    }
    samples = Samples({name: [] for name in hosts}, {})
    python = environments.python("main")
    assert python is not None
    scripts = stage / "tests" / "bench" / "scripts"
    rounds = min(rounds, MOST_ROUNDS_OF_MANY)
    for round_number in range(rounds):
        progress(f"{MANY} plugins: round {round_number + 1} of {rounds}")
        for name in rotated(list(hosts), round_number):
            script, arguments = hosts[name]
            command = [python, str(scripts / f"{script}_many_host.py"), str(MANY), python]
            command += [str(scripts / f"{script}_plugin.py"), *arguments]
            try:
                samples.values[name].append(run_script(command, stage))
            except ScriptError as error:
                samples.failures[name] = str(error)
    progress("")
    return samples


def measure_idle(peers: Sequence[str], environments: Environments, stage: Path) -> Samples:
    """See what an idle stream takes, and an idle connection."""
    samples = Samples({}, {})
    python = environments.python("main")
    assert python is not None
    script = str(stage / "tests" / "bench" / "scripts" / "idle.py")
    for peer in peers:
        for kind in IDLE_GOALS:
            progress(f"memory: {peer}")
            name = f"{kind} / {peer}"
            try:
                address = str(stage / f"idle-{kind}-{peer}")
                found = run_script([python, script, peer, kind, address], stage)
            except ScriptError as error:
                samples.failures[name] = str(error)
            else:
                samples.values[name] = [found]
    progress("")
    return samples


def measure_failures(
    backends: Sequence[str], environments: Environments, stage: Path, rounds: int
) -> Samples:
    """Time how fast our host notices that a plugin cannot be started, or was killed."""
    samples = Samples({}, {})
    python = environments.python("main")
    assert python is not None
    scripts = stage / "tests" / "bench" / "scripts"
    for round_number in range(rounds):
        progress(f"failures: round {round_number + 1} of {rounds}")
        for backend in rotated(backends, round_number):
            command = [python, str(scripts / "failures.py"), backend, python]
            command.append(str(scripts / "ours_plugin.py"))
            try:
                cases = run_script(command, stage)
            except ScriptError as error:
                samples.failures[backend] = str(error)
                continue
            for case, (seconds, raised) in cases.items():
                value = {"seconds": seconds}
                samples.values.setdefault(f"{case} / {backend} / {raised}", []).append(value)
    progress("")
    return samples


def run_script(command: Sequence[str], stage: Path, **variables: str) -> dict[str, Any]:
    """Return the JSON object that a script prints; end what it leaves behind."""
    process = subprocess.Popen(
        command,
        cwd=stage,
        env=child_variables(PYTHONPATH=str(stage), TMPDIR=str(stage / "tmp"), **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ScriptError(f"did not end within {TIMEOUT:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    if process.returncode:
        raise ScriptError(f"status {process.returncode}: {_last_line(errors)}")
    value: dict[str, Any] = json.loads(output.splitlines()[-1])
    return value


def _last_line(errors: bytes) -> str:
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word"
