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

from ._members import Replacement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.rpc._balanced import BalancedChannel

    from ._members import Member
    from ._plan import Plan
    from .supervision import RestartPolicy

End = Literal["exited", "unhealthy", "idle", "replace"]

# How often it is looked whether a plugin is idle, within the time that makes it so.
_LOOKS = 4
HEALTH_TIMEOUT = 5.0


async def watch_over(
    member: Member,
    plan: Plan,
    channel: BalancedChannel,
    *,
    is_surplus: Callable[[], bool],
    on_idle: Callable[[], None],
) -> End:
    """Wait until a plugin's time has ended, and say why.

    Args:
        member: The plugin.
        plan: What it is measured by.
        channel: What its calls come through.
        is_surplus: Whether there are more plugins than there need to be.
        on_idle: Called at once when it is idle, so that the next call has another one started.
    """
    ends: list[End] = []
    async with anyio.create_task_group() as tg:

        async def watch(why: End, wait: Callable[[], Awaitable[Any]]) -> None:
            await wait()
            if not ends:
                ends.append(why)
                if why == "idle":
                    on_idle()
                tg.cancel_scope.cancel()

        tg.start_soon(watch, "exited", member.launch.exited.wait)
        tg.start_soon(watch, "replace", member.replacing.wait)
        if plan.restart is not None and plan.restart.health_interval is not None:
            tg.start_soon(watch, "unhealthy", functools.partial(_bad_health, member, plan.restart))
        if plan.idle_timeout is not None:
            idle = functools.partial(_quiet, channel, channel.calls, plan.idle_timeout)
            tg.start_soon(watch, "idle", idle)
        if plan.pool.max_size is not None:
            surplus = functools.partial(_surplus, member, plan, channel, is_surplus)
            tg.start_soon(watch, "idle", surplus)
        if plan.pool.wears:
            tg.start_soon(watch, "replace", functools.partial(_worn, member, plan))
    return ends[0]


async def check_serving(channel: Channel, limit: float) -> None:
    """Ask a plugin whether it serves, and wait `limit` seconds for the answer.

    Raises:
        RPCPluginError: It does not say so.
        GRPCError, TimeoutError: It does not say anything.
    """
    with anyio.fail_after(limit):
        status = await check_health(channel, PLUGIN_SERVICE)
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
        except TimeoutError:
            member.complaint = f"no answer within {policy.health_timeout:g} s"
        except GRPCError as exc:
            if exc.status is Status.UNIMPLEMENTED:  # It has no such service.
                continue
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
        await _quiet(channel, calls, plan.pool.shrink_after)
        if is_surplus():
            return


async def _quiet(channel: BalancedChannel, calls: Callable[[], int], seconds: float) -> None:
    """Wait until there was no open call, and no new one, each time that it was looked."""
    looks = 0
    begun = channel.calls_begun
    while looks < _LOOKS:
        await anyio.sleep(seconds / _LOOKS)
        quiet = not calls() and channel.calls_begun == begun
        begun = channel.calls_begun
        looks = looks + 1 if quiet else 0


async def _worn(member: Member, plan: Plan) -> None:
    """Wait until a plugin has to be replaced for what it has done, or has become."""
    while not _is_worn(member, plan):  # noqa: ASYNC110 - nobody says when memory has grown
        await anyio.sleep(plan.pool.check_interval)
    member.replacement = Replacement(plan.pool.drain_timeout)


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
