"""The command line, `pyvider-rpcplugin`: looks at plugins, calls them, and says what is wrong."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the program.

    Raises:
        SystemExit: At its end: 0 if all is well, 1 if a plugin or a call is not, 2 for wrong
            arguments, or where a library is missing.
    """
    try:
        from ._app import app  # noqa: PLC0415 - what it needs may be missing
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write(
            f"the command line needs {exc.name}, which is not installed here: install this package "
            "with its extra `cli`, or `typer` beside it\n"
        )
        raise SystemExit(2) from None
    app(prog_name="pyvider-rpcplugin")
