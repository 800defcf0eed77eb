"""What both sides make of a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Cardinality

if TYPE_CHECKING:
    from ._interface import Method
    from ._loans import LoanKind

CARDINALITIES: dict[tuple[bool, bool], Cardinality] = {kind.value: kind for kind in Cardinality}
"""By what streams: the arguments, the results."""


def loan_kinds(method: Method) -> dict[str, LoanKind]:
    """The arguments of a method that are called back, by their names."""
    found = [one for one in method.parameters if one.reference is not None]
    if not found:
        return {}
    from ._loans import LoanKind  # noqa: PLC0415 - few methods have any

    return {one.name: LoanKind(method, one) for one in found}
