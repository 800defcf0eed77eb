"""Runs the plugin in a zip archive that has the plugin's dependencies in it, too.

Put into the archive as `__main__.py`. The system loads no extension modules out of an archive, so
this unpacks it, once, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

PLUGIN = "greeter_plugin"


def unpacked(archive: str) -> Path:
    """The folder that has what is in the archive, made if it is not there yet."""
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PLUGIN
    folder = cache / digest
    if not folder.is_dir():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = tempfile.mkdtemp(dir=cache)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(made)
        try:
            os.rename(made, folder)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    return folder


if __name__ == "__main__":
    sys.path[0] = str(unpacked(sys.path[0]))
    runpy.run_module(PLUGIN, run_name="__main__", alter_sys=True)
