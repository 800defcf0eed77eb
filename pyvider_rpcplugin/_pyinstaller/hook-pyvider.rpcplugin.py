"""What PyInstaller puts into a program that imports ``pyvider.rpcplugin``, the second name.

At run time its modules are those of the first name, which this has PyInstaller look at.
"""

from __future__ import annotations

hiddenimports = ["pyvider_rpcplugin"]
