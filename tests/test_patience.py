"""What the end of a process may take when others end at the same time."""

from __future__ import annotations

import anyio
import pytest

from pyvider_rpcplugin._patience import SECONDS_OF_A_CORE, cores, patience
from tests.broker.test_shared import in_virtual_time


@pytest.mark.parametrize("many", [0, 1, 100])
def test_each_process_beyond_the_cores_gives_all_of_them_more_time(many: int) -> None:
    async def main() -> None:
        ended: list[float] = []

        async def wait() -> None:
            began = anyio.current_time()
            with patience(2, "process") as scope:
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            ended.append(anyio.current_time() - began)

        async with anyio.create_task_group() as tasks:
            for _ in range(cores() + many):
                tasks.start_soon(wait)
        assert ended == pytest.approx([2 + many * SECONDS_OF_A_CORE / cores()] * len(ended))
        ended.clear()
        await wait()
        assert ended == [pytest.approx(2)]

    in_virtual_time(main)


def test_as_long_as_processes_end_the_others_are_waited_for() -> None:
    async def main() -> None:
        patient = 0

        async def end(after: float) -> None:
            nonlocal patient
            with patience(2, "process"):
                await anyio.sleep(after)
                patient += 1

        many = 10 * cores()
        async with anyio.create_task_group() as tasks:
            for number in range(many):
                tasks.start_soon(end, 1.5 * (number + 1) / cores())
        assert patient == many

    in_virtual_time(main)


def test_one_that_hangs_is_not_waited_for_as_long_as_there_are_others_that_end() -> None:
    async def main() -> None:
        async def end_others() -> None:
            while True:
                with patience(2, "process"):
                    await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_others)
            began = anyio.current_time()
            with anyio.fail_after(2 * (1 + 1 / cores()) + 0.1), patience(2, "process"):
                await anyio.sleep_forever()
            assert anyio.current_time() > began + 2
            tasks.cancel_scope.cancel()

    in_virtual_time(main)
