"""What the installed grpcio-tools generates for the echo service, unchanged."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from pyvider_rpcplugin.codegen import generate

ROOT = Path(__file__).parents[2]


def _generated() -> ModuleType:
    with tempfile.TemporaryDirectory() as folder:
        [file] = [
            path
            for path in generate(ROOT / "tests/protos", folder, kinds=["grpcio"], root=ROOT)
            if path.name == "echo_pb2_grpc.py"
        ]
        spec = importlib.util.spec_from_file_location("generated_echo_pb2_grpc", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module


module: Any = _generated()
EchoStub = module.EchoStub
EchoServicer = module.EchoServicer
add_EchoServicer_to_server = module.add_EchoServicer_to_server  # noqa: N816 - its name
