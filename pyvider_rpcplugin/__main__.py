"""The command line: `python -m pyvider_rpcplugin`."""

from __future__ import annotations

from pyvider_rpcplugin.cli import main

if __name__ == "__main__":
    main()
