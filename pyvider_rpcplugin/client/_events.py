"""How events reach those who want to know: a function, and any number of iterators."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskStatus

    from .supervision import PluginEvent

    OnEvent = Callable[[PluginEvent], Awaitable[None] | None]

logger = logging.getLogger(__name__)

# What an iterator that nobody reads may hold; then it loses the oldest.
_MOST_UNREAD = 1024


class PluginEvents:
    """Events from the moment that this was made, in order: an async iterator, and a context manager.

    It ends when the client has stopped. One that is left aside holds the latest 1,024 events.
    """

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._unread: deque[PluginEvent] = deque(maxlen=_MOST_UNREAD)
        self._arrived = anyio.Event()
        self._closed = False

    def put(self, event: PluginEvent) -> None:
        """Add an event."""
        self._unread.append(event)
        self._arrived.set()

    def close(self) -> None:
        """End it, once what it holds has been read."""
        self._closed = True
        self._hub.leave(self)
        self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PluginEvent:
        while not self._unread:
            if self._closed:
                raise StopAsyncIteration
            if self._arrived.is_set():  # Otherwise another task waits for it already.
                self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._unread.popleft()

    async def aclose(self) -> None:
        """Take no more events, and forget those that were not read."""
        self._unread.clear()
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class EventHub:
    """Hands events on.

    Args:
        on_event: Is called with each, and what it returns is awaited if it can be: one after the
            other. What it raises is logged.
    """

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event
        self._iterators: list[PluginEvents] = []

    def subscribe(self) -> PluginEvents:
        """Make an iterator over what happens from now on."""
        iterator = PluginEvents(self)
        self._iterators.append(iterator)
        return iterator

    def leave(self, iterator: PluginEvents) -> None:
        """Forget an iterator."""
        if iterator in self._iterators:
            self._iterators.remove(iterator)

    def emit(self, event: PluginEvent) -> None:
        """Tell everybody."""
        for iterator in self._iterators:
            iterator.put(event)

    def end(self) -> None:
        """End all iterators."""
        for iterator in list(self._iterators):
            iterator.close()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Call `on_event` until the end."""
        events = self.subscribe()
        task_status.started()
        if self._on_event is None:
            events.close()
        async for event in events:
            try:
                result = self._on_event(event) if self._on_event is not None else None
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("on_event failed for %s", event.kind)
