"""Public names that are loaded when they are first used (PEP 562).

A plugin's user waits while it starts, and most of that time is imports: a package whose names
are needed by some of its users only loads each from its module on demand. Garbage is not collected
meanwhile, which would take up to a tenth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._collector import collection_put_off

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(
    package: str, homes: Mapping[str, tuple[str, ...]], namespace: dict[str, object]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make a package's `__getattr__` and `__dir__`.

    Args:
        package: The package's name.
        homes: Its names, by the modules below it that define them.
        namespace: Its `globals()`, where a name is put once it was used.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        module = modules.get(name)
        if module is None:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from importlib import import_module  # noqa: PLC0415 - only when a name is used

        with collection_put_off():
            value: object = getattr(import_module(f"{package}.{module}"), name)
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *modules})

    return get, names
