"""Makes the one file that Terraform runs, in a folder with the layout of its mirrors of providers.

    python package.py FOLDER [asyncio|trio]

The file is an archive with all of the provider. It is run by the Python that made it, which has to
have pyvider-rpcplugin.
"""

from __future__ import annotations

import argparse
import compileall
import platform
import shutil
import sys
import tempfile
import zipapp
from importlib.util import find_spec
from pathlib import Path

# By what users name the provider: HOST/NAMESPACE/NAME. The host need not exist.
ADDRESS = "example.com/demo/files"
VERSION = "1.2.3"
MODULES = ["cty", "files", "provider", "schema", "tfplugin6_pb2"]
# As Go calls them.
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def package(mirror: Path, loop: str = "asyncio") -> Path:
    """Make the file, below a folder that is or becomes a mirror."""
    machine = platform.machine().lower()
    target = f"{sys.platform}_{MACHINES.get(machine, machine)}"
    folder = mirror / ADDRESS / VERSION / target
    folder.mkdir(parents=True, exist_ok=True)
    # This folder's contents are what Terraform takes a checksum of. So there is but this file: beside
    # modules of its own, Python would leave there what it has compiled.
    program = folder / f"terraform-provider-{ADDRESS.rpartition('/')[2]}_v{VERSION}"
    with tempfile.TemporaryDirectory() as modules:
        for name in MODULES:
            spec = find_spec(name)
            if spec is None or spec.origin is None:
                sys.exit(f"{name} is not here: see README.md")
            shutil.copy(spec.origin, modules)
        Path(modules, "__main__.py").write_text(f"import files\n\nfiles.main({loop!r})\n")
        # Nothing is kept of what Python compiles of an archive, so it is done here.
        if not compileall.compile_dir(modules, legacy=True, quiet=1, stripdir=modules):
            sys.exit("that is not Python")
        zipapp.create_archive(modules, program, interpreter=sys.executable)
    return program


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the file that Terraform runs.")
    parser.add_argument("mirror", type=Path, metavar="FOLDER")
    parser.add_argument("loop", choices=["asyncio", "trio"], default="asyncio", nargs="?")
    options = parser.parse_args()
    print(package(options.mirror, options.loop))
