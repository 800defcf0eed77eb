"""uvloop in the place of asyncio's own event loop, for a program that asks for it."""

from __future__ import annotations

import importlib
import os
import sys

from pyvider_rpcplugin.exception import ConfigError

# What anyio takes by the option `use_uvloop`. It is there for Windows under another name.
_MODULE = "winloop" if sys.platform == "win32" else "uvloop"


def uvloop_options(backend: str) -> dict[str, bool]:
    """Return the backend options by which anyio runs uvloop, in a process that is ready for it.

    Raises:
        ConfigError: It is not installed, or the backend is another one than asyncio.
    """
    if backend != "asyncio":
        msg = f"use_uvloop is for asyncio, and the backend is {backend!r}"
        raise ConfigError(msg, hint='leave one of them out: run(use_uvloop=True), run("trio")')
    try:
        importlib.import_module(_MODULE)
    except ImportError as exc:
        msg = f"use_uvloop needs {_MODULE}, which cannot be imported: {exc}"
        hint = f"pip install {_MODULE} into the plugin's environment, or leave use_uvloop out"
        raise ConfigError(msg, hint=hint) from exc
    _occupy_standard_descriptors()
    return {"use_uvloop": True}


def _occupy_standard_descriptors() -> None:
    """See to it that the loop has none of the descriptors 0 to 2 as its own: libuv aborts over that.

    One of them is free where the program was started without its standard output, for example.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
