"""The name ``pyvider.rpcplugin``: the modules of ``pyvider_rpcplugin`` under a second name.

The wheel has this file at ``pyvider/rpcplugin/__init__.py``, and beside it one file for each public
module, for type checkers alone: when the interpreter imports anything under this name, the finder
below hands out the module that the first name has. So there is one set of classes and one state,
and ``isinstance``, ``except`` and pickle do not care which name a program uses.

The folder ``pyvider`` has no ``__init__.py``: other distributions put packages there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvider_rpcplugin import *
    from pyvider_rpcplugin import __version__ as __version__
else:
    import importlib
    import importlib.util
    import sys
    from importlib.machinery import ModuleSpec

    import pyvider_rpcplugin

    _PREFIX = f"{__name__}."

    class _SecondName:
        """Finds and loads ``pyvider.rpcplugin.X`` as ``pyvider_rpcplugin.X``.

        Sharing ``__path__`` would not do: the file of a submodule would then be executed once for
        each of its names.
        """

        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            if not fullname.startswith(_PREFIX):
                return None
            spec = importlib.util.find_spec(_first_name(fullname))
            if spec is None:
                return None
            second = ModuleSpec(
                fullname,
                cls,
                origin=spec.origin,
                is_package=spec.submodule_search_locations is not None,
            )
            second.has_location = spec.has_location
            return second

        @staticmethod
        def create_module(spec):
            module = importlib.import_module(_first_name(spec.name))
            spec.loader_state = module.__spec__
            return module

        @staticmethod
        def exec_module(module):
            # It has been executed under its first name. The import system has just put the second
            # name's spec into it, which would be wrong for relative imports, reload and runpy.
            module.__spec__ = module.__spec__.loader_state

        @staticmethod
        def get_code(fullname):
            # For `python -m pyvider.rpcplugin`.
            spec = importlib.util.find_spec(_first_name(fullname))
            return spec.loader.get_code(spec.name)

    def _first_name(fullname):
        return f"pyvider_rpcplugin.{fullname.removeprefix(_PREFIX)}"

    # Before the path finder, which would find the files themselves.
    sys.meta_path.insert(0, _SecondName)
    # The import system takes a module from here after it has executed the module's file.
    sys.modules[__name__] = pyvider_rpcplugin
