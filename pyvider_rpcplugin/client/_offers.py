"""What a client lets its plugins call, from the first time that they may need it on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pyvider_rpcplugin.protocol.typed import Loans


@final
class Offers:
    """The services of a client, and what it lends: the same for all plugins that it starts.

    Attributes:
        services: The services.
    """

    def __init__(self, services: list[object]) -> None:
        self.services = services
        self._wanted = bool(services)
        self._loans: Loans | None = None
        self._begin: list[Callable[[], None]] = []

    @property
    def loans(self) -> Loans:
        """What is lent."""
        if self._loans is None:
            from pyvider_rpcplugin.protocol.typed import Loans  # noqa: PLC0415 - few hosts lend

            self._loans = Loans()
        return self._loans

    def want(self) -> Loans:
        """See to it that all plugins can call back, those that are started later included."""
        if not self._wanted:
            self._wanted = True
            for begin in self._begin:
                begin()
        return self.loans

    @contextlib.contextmanager
    def given(self, begin: Callable[[], None]) -> Generator[None]:
        """Have `begin` called as soon as a plugin has to be able to call back.

        Args:
            begin: Makes the offer to one plugin, which runs for the length of the block.
        """
        self._begin.append(begin)
        try:
            if self._wanted:
                begin()
            yield
        finally:
            self._begin.remove(begin)
