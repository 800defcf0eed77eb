"""A host that makes an environment: its arguments are the cache and the requirements."""

from __future__ import annotations

import sys

import anyio

from pyvider_rpcplugin import EnvironmentProgress, python_plugin


def tell(step: EnvironmentProgress) -> None:
    sys.stdout.write(f"{step.kind} {step.line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    plugin = python_plugin("x.py", env=sys.argv[2:], cache=sys.argv[1], on_progress=tell)
    sys.stdout.write(anyio.run(plugin.prepare).command[0] + "\n")
