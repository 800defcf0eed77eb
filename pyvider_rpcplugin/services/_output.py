"""What a plugin has printed and its host has not got yet."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin._loops import caller_from_threads

from ._stdio_messages import StdioChannel

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is held of each channel, whether somebody listens or not: the newest of it.
MOST = 16 << 20
# How long a thread that prints waits for a listener that takes nothing at all.
_PATIENCE = 1.0


class OutputBuffer:
    """Takes output from any thread, and gives it to one task of the loop.

    Who prints never waits for nobody. While a listener takes what there is, a thread that prints
    faster waits for it (the thread of the loop never does, since it is what serves the listener).
    A listener that stops taking is waited for once, for a second. What then does not fit any
    more pushes out the oldest.
    """

    def __init__(self) -> None:
        self._room = threading.Condition()
        self._held = {channel: bytearray() for channel in StdioChannel}
        self._last = StdioChannel.STDERR
        self._listening = False
        self._stalled = False
        self._hurry = False
        self._taken = 0
        self._arrived = anyio.Event()
        self._waking = False
        self._call: Callable[[Callable[[], object]], object] | None = None
        self.ended: bool = False
        self.dropped: int = 0
        """How many bytes have been pushed out."""

    # For who prints, in any thread.

    def put(self, channel: StdioChannel, data: bytes, *, may_wait: bool) -> None:
        """Take output.

        Args:
            channel: Where it was printed to.
            data: What was printed.
            may_wait: Whether this thread may wait for a listener that is slower.
        """
        with self._room:
            held = self._held[channel]
            if may_wait:
                self._wait_for_room(held, len(data))
            held += data
            excess = len(held) - MOST
            if excess > 0:
                del held[:excess]
                self.dropped += excess
            wake, self._waking = not self._waking, True
        if wake:
            self._wake()

    def _wait_for_room(self, held: bytearray, size: int) -> None:
        while self._listening and not self._stalled and not self._hurry and len(held) + size > MOST:
            taken = self._taken
            self._room.wait(_PATIENCE)
            self._stalled = taken == self._taken

    def _wake(self) -> None:
        if self._call is not None:
            # Both loops raise a RuntimeError of their own once they have ended.
            with contextlib.suppress(RuntimeError):
                self._call(self._on_wake)

    def hurry(self) -> None:
        """Let nobody wait any more: the end is near."""
        with self._room:
            self._hurry = True
            self._room.notify_all()

    # For the loop.

    def bind(self) -> None:
        """Belong to the running loop."""
        self._call = caller_from_threads()

    def _on_wake(self) -> None:
        with self._room:
            self._waking = False
        self._arrived.set()

    def listen(self, listening: bool) -> None:
        """Say whether somebody takes the output now."""
        with self._room:
            self._listening = listening
            self._stalled = False
            self._room.notify_all()

    def take(self, most: int) -> tuple[StdioChannel, bytes] | None:
        """Take the oldest of one of the channels, by turns; None if there is nothing."""
        with self._room:
            first = StdioChannel.STDOUT
            if self._last is first:
                first = StdioChannel.STDERR
            for channel in (first, self._last):
                held = self._held[channel]
                if held:
                    self._last = channel
                    data = bytes(held[:most])
                    del held[:most]
                    self._taken += 1
                    self._stalled = False
                    self._room.notify_all()
                    return channel, data
        return None

    def put_back(self, channel: StdioChannel, data: bytes) -> None:
        """Undo a `take`."""
        with self._room:
            self._held[channel][:0] = data

    async def wait(self) -> None:
        """Wait until there may be something to take. Cancelling is safe."""
        self._arrived = arrived = anyio.Event()
        # What is put from here on wakes us: that happens in the loop, so not before the next line.
        if not self.ended and not any(self._held.values()):
            await arrived.wait()

    def wake(self) -> None:
        """Have who waits look again."""
        self._arrived.set()

    def end(self) -> None:
        """Say that nothing more will come."""
        self.ended = True
        self._arrived.set()
