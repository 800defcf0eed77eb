"""Modules are generated with one call, and what is wrong is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyvider_rpcplugin import codegen
from pyvider_rpcplugin.codegen import generate
from pyvider_rpcplugin.exception import ProtocolError

THING = """
syntax = "proto3";
package things;
import "parts/part.proto";
service Things {
  rpc Find(parts.Part) returns (parts.Part);
}
"""
PART = """
syntax = "proto3";
package parts;
import "google/protobuf/timestamp.proto";
message Part {
  google.protobuf.Timestamp made = 1;
}
"""


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    folder = tmp_path / "protos"
    (folder / "parts").mkdir(parents=True)
    (folder / "thing.proto").write_text(THING)
    (folder / "parts" / "part.proto").write_text(PART)
    return folder


def imported(folder: Path, code: str) -> str:
    """What `code` prints with the modules of `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_files_of_a_folder_become_modules_that_import_each_other(
    protos: Path, tmp_path: Path
) -> None:
    made = generate(protos, tmp_path / "out")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in made]
    assert names == [
        "parts/part_grpc.py",
        "parts/part_pb2.py",
        "parts/part_pb2.pyi",
        "thing_grpc.py",
        "thing_pb2.py",
        "thing_pb2.pyi",
    ]
    seen = imported(tmp_path / "out", "import thing_grpc; print(thing_grpc.ThingsStub.__name__)")
    assert seen == "ThingsStub"


def test_each_kind_of_stubs_is_there(protos: Path, tmp_path: Path) -> None:
    made = generate(protos, tmp_path / "out", kinds=["grpclib", "grpcio"])
    assert {"thing_grpc.py", "thing_pb2_grpc.py"} <= {path.name for path in made}
    code = "import thing_pb2_grpc; print(thing_pb2_grpc.add_ThingsServicer_to_server.__name__)"
    assert imported(tmp_path / "out", code) == "add_ThingsServicer_to_server"


def test_files_inside_of_a_package_are_generated_beside_themselves(
    protos: Path, tmp_path: Path
) -> None:
    for path in protos.rglob("*.proto"):
        path.write_text(path.read_text().replace('import "parts', 'import "protos/parts'))
    made = generate(protos, root=tmp_path)
    assert protos / "parts" / "part_pb2.py" in made
    seen = imported(tmp_path, "from protos.thing_grpc import ThingsBase; print(ThingsBase)")
    assert "ThingsBase" in seen


def test_modules_that_stay_the_same_are_not_touched(protos: Path, tmp_path: Path) -> None:
    [path, *_] = generate(protos, tmp_path / "out")
    os.utime(path, (1, 1))
    generate(protos, tmp_path / "out")
    assert path.stat().st_mtime == 1


def test_a_mistake_in_a_file_is_shown_and_nothing_is_written(protos: Path, tmp_path: Path) -> None:
    (protos / "thing.proto").write_text(THING.replace("rpc Find", "rpc"))
    with pytest.raises(ProtocolError, match="protoc failed") as caught:
        generate(protos, tmp_path / "out")
    assert "thing.proto:6" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"no \.proto file"):
        generate(tmp_path)


def test_a_root_elsewhere_is_refused(protos: Path, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="is not below"):
        generate(protos, root=protos / "parts")


def test_an_unknown_kind_is_refused_with_those_there_are(protos: Path) -> None:
    with pytest.raises(ProtocolError, match="'grpc'") as caught:
        generate(protos, kinds=["grpc"])  # type: ignore[list-item]
    assert "grpclib, grpcio, betterproto2" in (caught.value.hint or "")
    with pytest.raises(ProtocolError, match="no kind"):
        generate(protos, kinds=[])


def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, tools: bool) -> None:
    """An environment in which programs are missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(codegen, "entry_points", lambda **_: ())
    if not tools:
        monkeypatch.setitem(sys.modules, "grpc_tools", None)
        monkeypatch.setattr(codegen, "find_spec", lambda name: None)


def test_a_missing_protoc_is_said_with_what_to_install(
    protos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, tmp_path, tools=False)
    with pytest.raises(ProtocolError, match="protoc is not there") as caught:
        generate(protos)
    assert caught.value.hint == "pip install grpcio-tools"


def test_a_missing_plugin_is_said_with_what_to_install(
    protos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, tmp_path, tools=True)
    with pytest.raises(ProtocolError, match="protoc-gen-python_betterproto2") as caught:
        generate(protos, kinds=["betterproto2"])
    assert caught.value.hint == "pip install betterproto2_compiler"


def test_a_protoc_on_the_path_is_used(
    protos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "protoc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    program.chmod(0o755)
    without(monkeypatch, tmp_path, tools=False)
    with pytest.raises(ProtocolError, match="what generates grpcio's stubs") as caught:
        generate(protos, kinds=["grpcio"])
    assert caught.value.hint == "pip install grpcio-tools"
    plugin = tmp_path / "protoc-gen-grpclib_python"
    plugin.write_text(f"#!{sys.executable}\nfrom grpclib.plugin.main import main\nmain()\n")
    plugin.chmod(0o755)
    assert len(generate(protos, tmp_path / "out")) == 6
