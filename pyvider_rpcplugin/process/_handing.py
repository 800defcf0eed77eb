"""A few octets for a child process that neither its environment nor a file should hold.

They lie in a pipe before the child is started; only its reading end is left then, and the child
inherits that. A variable says which descriptor it is, and by the number of its inode which pipe: on
the way through a wrapper, descriptors may be closed and used for something else, while variables stay.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from pyvider_rpcplugin.process._process import subprocess_runner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from pyvider_rpcplugin.process._spec import RunSpec
    from pyvider_rpcplugin.process.runners import Runner

__all__ = ["handing_runner"]

_VARIABLE = "PLUGIN_IDENTITY_PIPE"


@asynccontextmanager
async def handing_runner(
    spec: RunSpec, data: bytes, *, executable: str | None = None, pass_fds: Sequence[int] = ()
) -> AsyncGenerator[Runner, None]:
    """What `subprocess_runner` does, for a process that gets `data`: at most 4096 octets.

    No descriptor of the pipe is left here once the process has started, or has not.
    """
    async with AsyncExitStack() as stack:
        with _filled_pipe(data) as (descriptors, variables):
            # What it holds is the child's alone: it does not wait here for the child's end.
            del data
            runner = subprocess_runner(
                spec.replace(env={**spec.env, **variables}),
                executable=executable,
                pass_fds=(*pass_fds, *descriptors),
            )
            child = await stack.enter_async_context(runner)
        yield child


@contextmanager
def _filled_pipe(data: bytes) -> Generator[tuple[Sequence[int], dict[str, str]]]:
    """Give the descriptors to hand on, and what tells of them; none if no pipe can be had.

    They are closed with the block. Whoever else is started meanwhile does not inherit them.
    """
    try:
        reading, writing = os.pipe()
    except OSError:
        # There are no descriptors left: the start itself says that best.
        yield (), {}
        return
    try:
        try:
            # It takes this without a wait. The reader does not wait either, even if a process that
            # was forked off at this moment, by somebody else, has the writing end, too.
            os.set_blocking(reading, False)
            os.write(writing, data)
        finally:
            os.close(writing)
        found = os.fstat(reading)
        yield (reading,), {_VARIABLE: f"{reading}:{found.st_dev}:{found.st_ino}"}
    finally:
        os.close(reading)
