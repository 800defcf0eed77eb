"""What ends the time of a plugin that is kept running."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.process import resident_memory
from pyvider_rpcplugin.services import PLUGIN_SERVICE, ServingStatus, check_health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.rpc._balanced import BalancedChannel

    from ._members import Member, Place
    from ._plan import Plan
    from .supervision import RestartPolicy

End = Literal["exited", "unhealthy", "idle", "surplus", "replace", "worn"]

# How often it is looked whether a plugin is idle, within the time that makes it so.
_LOOKS = 4
HEALTH_TIMEOUT = 5.0
# How long a worn plugin whose successors do not work may have to wait for the next one.
_LONGEST_PAUSE = 60.0


async def watch_over(
    place: Place,
    member: Member,
    plan: Plan,
    channel: BalancedChannel,
    *,
    is_surplus: Callable[[], bool],
    on_idle: Callable[[End], None],
) -> End:
    """Wait until a plugin's time has ended, and say why.

    Args:
        place: Where it is.
        member: The plugin.
        plan: What it is measured by.
        channel: What its calls come through.
        is_surplus: Whether it is one more than there need to be.
        on_idle: Called at once with the reason when it is not needed, so that no call goes to it
            any more, and the next one has another one started.
    """
    ends: list[End] = []
    async with anyio.create_task_group() as tg:

        async def watch(why: End, wait: Callable[[], Awaitable[Any]]) -> None:
            await wait()
            if not ends:
                ends.append(why)
                if why in {"idle", "surplus"}:
                    on_idle(why)
                tg.cancel_scope.cancel()

        tg.start_soon(watch, "exited", member.launch.exited.wait)
        tg.start_soon(watch, "replace", place.asked.wait)
        tg.start_soon(watch, "idle", place.idle.wait)
        if plan.restart is not None and plan.restart.health_interval is not None:
            tg.start_soon(watch, "unhealthy", functools.partial(_bad_health, member, plan.restart))
        if plan.idle_timeout is not None:
            idle = functools.partial(
                _quiet, channel.calls, lambda: channel.calls_begun, plan.idle_timeout
            )
            tg.start_soon(watch, "idle", idle)
        if plan.pool.max_size is not None:
            surplus = functools.partial(_surplus, member, plan, channel, is_surplus)
            tg.start_soon(watch, "surplus", surplus)
        if plan.pool.wears:
            tg.start_soon(watch, "worn", functools.partial(_worn, member, plan))
    return ends[0]


async def check_serving(channel: Channel, limit: float) -> None:
    """Ask a plugin whether it serves, and wait `limit` seconds for the answer.

    One that has no health service cannot be asked, and is taken to be well.

    Raises:
        RPCPluginError: It does not say so, or says nothing.
        GRPCError: It cannot be asked.
    """
    try:
        with anyio.fail_after(limit):
            status = await check_health(channel, PLUGIN_SERVICE)
    except TimeoutError:
        msg = f"no answer within {limit:g} s"
        raise RPCPluginError(msg, phase="call") from None
    except GRPCError as exc:
        if exc.status is Status.UNIMPLEMENTED:
            return
        raise
    if status is not ServingStatus.SERVING:
        msg = f"the plugin says that it is {status.name}"
        raise RPCPluginError(msg, phase="call")


async def _bad_health(member: Member, policy: RestartPolicy) -> None:
    """Wait until a plugin's health service has given bad answers only, often enough."""
    failures = 0
    while failures < policy.health_failures:
        await anyio.sleep(policy.health_interval or 0)
        try:
            await check_serving(member.channel, policy.health_timeout)
        except GRPCError as exc:
            member.complaint = f"{exc.status.name}: {exc.message}"
        except RPCPluginError as exc:
            member.complaint = exc.message
        else:
            failures = 0
            continue
        failures += 1


async def _surplus(
    member: Member, plan: Plan, channel: BalancedChannel, is_surplus: Callable[[], bool]
) -> None:
    """Wait until a plugin beyond the pool's size has had no call for a while."""
    calls = functools.partial(member.channel.open_calls, channel)
    while True:
        await _quiet(calls, lambda: member.channel.requests_sent, plan.pool.shrink_after)
        if is_surplus():
            return


async def _quiet(calls: Callable[[], int], begun: Callable[[], int], seconds: float) -> None:
    """Wait until there was no open call, and no new one, each time that it was looked."""
    looks = 0
    before = begun()
    while looks < _LOOKS:
        await anyio.sleep(seconds / _LOOKS)
        now = begun()
        looks = looks + 1 if not calls() and now == before else 0
        before = now


async def _worn(member: Member, plan: Plan) -> None:
    """Wait until a plugin has to be replaced for what it has done, or has become."""
    pause = plan.pool.check_interval
    if member.refused:
        await anyio.sleep(max(pause, min(pause * 2.0 ** min(member.refused, 63), _LONGEST_PAUSE)))
    while not _is_worn(member, plan):  # noqa: ASYNC110 - nobody says when memory has grown
        await anyio.sleep(pause)


def _is_worn(member: Member, plan: Plan) -> bool:
    pool = plan.pool
    if pool.max_age is not None and anyio.current_time() - member.began >= pool.max_age:
        return True
    if pool.max_calls is not None and member.channel.requests_sent >= pool.max_calls:
        return True
    if pool.max_memory is None or member.launch.pid is None:
        return False
    memory = resident_memory(member.launch.pid)
    return memory is not None and memory > pool.max_memory
