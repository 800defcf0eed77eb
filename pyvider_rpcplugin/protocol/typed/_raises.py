"""Which exceptions travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["raises"]

T = TypeVar("T")


def raises(*errors: type[Exception]) -> Callable[[T], T]:
    """Say which exceptions a method, or all methods of a class, raise on the other side as well.

    For the interface that the caller has, whether a class or a protocol. An exception of such a
    class, or derived from one, arrives as that class: with its `args`, and with the attributes
    that the class annotates, as its fields. Its constructor is not called.

    Args:
        errors: The classes.

    Raises:
        TypeError: One of them is no class of exceptions.
    """
    given: tuple[Any, ...] = errors
    for error in given:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            msg = f"raises() takes classes of exceptions, not {error!r}"
            raise TypeError(msg)

    def mark(thing: T) -> T:
        said = vars(thing).get("__remote_errors__", ())
        thing.__remote_errors__ = (*said, *errors)  # type: ignore[attr-defined]  # anything's
        return thing

    return mark
