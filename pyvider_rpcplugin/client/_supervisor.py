"""The session of a client that keeps its plugin running, or several of one kind.

A place is what one plugin fills, over all its restarts: a task. Calls go through one channel that
outlives them all, to whichever plugins are in it at the moment.
"""

from __future__ import annotations

import functools
import logging
import random
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import Session, first, raise_bare, unwrapped
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError, SecurityError
from pyvider_rpcplugin.rpc import ConnectionLost
from pyvider_rpcplugin.rpc._balanced import BalancedChannel
from pyvider_rpcplugin.services import rpc_options

from ._members import Member, Place, Replacement
from ._restarts import Restarts
from ._watch import HEALTH_TIMEOUT, check_serving, watch_over
from .supervision import PluginEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup, TaskStatus

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.exception import PluginExit
    from pyvider_rpcplugin.handshake import HandshakeRecord
    from pyvider_rpcplugin.process import PluginProcess
    from pyvider_rpcplugin.services import Broker

    from ._events import EventHub
    from ._launch import Launch
    from ._lifecycle import Lifecycle
    from ._plan import Plan
    from ._watch import End
    from .supervision import Kind

# What ending a plugin may take beyond the grace of its running calls.
_END_MARGIN = 10.0
# How long the end waits for a function that is being told of it.
_TELLING_TIMEOUT = 5.0


class Supervisor:
    """What a client has in place of a launch when more than one start may be needed.

    Args:
        name: The plugin's name.
        settings: The client's.
        plan: What is to be kept running.
        new_launch: Prepares a start; given what is set when the plugin has ended. May be exchanged.
        hub: Who is told what happens.
        exited: Set when no plugin will run any more.
        lifecycle: Where it is counted and logged.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        plan: Plan,
        new_launch: Callable[[anyio.Event], Launch],
        hub: EventHub,
        exited: anyio.Event,
        lifecycle: Lifecycle,
    ) -> None:
        self.name = name
        self.settings = settings
        self.exited = exited
        self.over = anyio.Event()
        self._plan = plan
        self.new_launch = new_launch
        self._hub = hub
        self._life = lifecycle
        self.channel = BalancedChannel(
            options=rpc_options(settings, plan.default_deadline),
            on_wanted=self._on_wanted,
            on_busy=self._on_busy,
            busy_calls=plan.pool.busy_calls,
        )
        self._told = anyio.Event()
        self._tasks: TaskGroup  # of what was started
        self._callers: set[int]
        self._place_tasks: TaskGroup
        self._places: list[Place] = []
        self._serving: list[Member] = []
        self._spares: list[Member] = []
        self._members: set[Member] = set()
        self._starting: set[Launch] = set()
        self._last_exit: PluginExit | None = None
        self._reloading = anyio.Lock()
        self._stopping = False
        self._gave_up = False
        self._restarts = (
            None
            if plan.restart is None
            else Restarts(plan.restart, share=plan.pool.size, random=random.random)
        )

    # What the client asks, as it asks a launch.

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Those whose plugins take calls now, the latest first."""
        return tuple(member.launch for member in reversed(self._serving))

    @property
    def exit(self) -> PluginExit | None:
        """How the latest plugin that has ended did; None while one runs."""
        return None if self._serving and not self._stopping else self._last_exit

    @property
    def broker(self) -> Broker | None:
        """The latest plugin's; None while none runs."""
        return self.launches[0].broker if self._serving else None

    @property
    def record(self) -> HandshakeRecord | None:
        """What the latest plugin said; None while none runs."""
        return self.launches[0].record if self._serving else None

    @property
    def process(self) -> PluginProcess | None:
        """The latest plugin's; None while none runs."""
        return self.launches[0].process if self._serving else None

    @property
    def pid(self) -> int | None:
        """The latest plugin's; None while none runs."""
        return self.launches[0].pid if self._serving else None

    def abandon(self) -> None:
        """End the processes without an event loop: theirs was closed under them."""
        for launch in (*self._starting, *(member.launch for member in self._members)):
            launch.abandon()

    # The session.

    async def run(self, session: Session[None]) -> None:
        """Be the session: start what is wanted now, and keep it running until stopped."""
        self._callers = session.callers
        try:
            with unwrapped(), unwrapped():
                async with anyio.create_task_group() as tg:
                    self._tasks = tg
                    await tg.start(self.channel.run)
                    await tg.start(self._tell, session)
                    async with anyio.create_task_group() as places:
                        self._place_tasks = places
                        try:
                            if not self._plan.lazy:
                                await self._start_all()
                            session.started(None)
                            await session.stop_requested.wait()
                        finally:
                            # First, nobody looks after the plugins any more: they are to end.
                            self._stopping = True
                            self.channel.close()
                            places.cancel_scope.cancel()
                    await self._end_all()
                    self._hub.end()
                    with anyio.move_on_after(_TELLING_TIMEOUT):
                        await self._told.wait()
                    tg.cancel_scope.cancel()
        finally:
            self.channel.close()
            self.exited.set()
            self.over.set()
            self._hub.end()

    async def _tell(self, session: Session[None], *, task_status: TaskStatus[None]) -> None:
        """Tell the client's function what happens, to the end."""
        with session.calling():
            await self._hub.run(task_status=task_status)
        self._told.set()

    async def _start_all(self) -> None:
        """Start as many as there are to be, at the same time; all or none.

        Raises:
            RPCPluginError: The first failure of one.
        """
        failures: list[RPCPluginError] = []
        async with anyio.create_task_group() as tg:

            async def start() -> None:
                try:
                    await self._start_place()
                except RPCPluginError as exc:
                    failures.append(exc)
                    tg.cancel_scope.cancel()

            for _ in range(self._plan.pool.size + self._plan.pool.spares):
                tg.start_soon(start)
        if failures:
            raise_bare(failures[0])

    async def _start_place(self) -> None:
        member = await self._start()
        self._new_place(Place(member))
        self._admit(member)

    async def _end_all(self) -> None:
        async with anyio.create_task_group() as tg:
            for member in tuple(self._members):
                tg.start_soon(self._end, member, "the client stops")

    async def reload(
        self, drain_timeout: float | None, new_launch: Callable[[anyio.Event], Launch] | None
    ) -> None:
        """Replace all plugins by new ones, one after the other; start one if none runs.

        Args:
            drain_timeout: Seconds that the calls of an old one may take.
            new_launch: What prepares starts from now on; if not even the first new one works,
                all stays as it was.

        Raises:
            RPCPluginError: A new one could not be started, or is not healthy; what ran goes on. Or
                the client is stopped.
        """
        async with self._reloading:
            before = self.new_launch
            self.new_launch = new_launch or before
            done = False
            try:
                if self._restarts is not None:
                    self._restarts.forget()
                for place in self._places[:]:
                    await self._renew(place, Replacement(drain_timeout))
                    done = True
                if not self._places:
                    replacement = Replacement(drain_timeout)
                    self._new_place(Place(replacement=replacement))
                    await self._settled(replacement)
                self._fill_up()
            except Exception:
                if not done:
                    self.new_launch = before
                raise

    async def _renew(self, place: Place, replacement: Replacement) -> None:
        while place.replacement is not None:  # somebody else's, who has given up the waiting
            await place.replacement.settled.wait()
        if place in self._places:
            place.replace(replacement)
            await self._settled(replacement)

    async def _settled(self, replacement: Replacement) -> None:
        if self._stopping:
            replacement.settle(self._stopped())
        await replacement.settled.wait()
        if replacement.error is not None:
            raise_bare(replacement.error)

    def _stopped(self) -> RPCPluginError:
        return RPCPluginError(f"the client of plugin {self.name} is stopped", phase="launch")

    # Places.

    def _on_wanted(self) -> None:
        if not self._places and not self._gave_up:
            self._fill_up()

    def _fill_up(self) -> None:
        """Have as many places as there are to be at least."""
        pool = self._plan.pool
        for _ in range(pool.size + pool.spares - len(self._places)):
            self._new_place(Place())

    def _on_busy(self) -> None:
        pool = self._plan.pool
        working = len(self._places) - pool.spares
        if pool.max_size is None or working >= pool.max_size:
            return
        if self.channel.calls() < working * pool.busy_calls:
            return  # Those that are being started will do.
        if self._restarts is None or not self._restarts.exhausted(anyio.current_time()):
            self._new_place(Place())

    def _is_surplus(self, member: Member) -> bool:
        return member in self._serving and len(self._serving) > self._plan.pool.size

    def _leave(self, place: Place) -> None:
        """A place is not to be filled any more."""
        if place in self._places:
            self._places.remove(place)

    def _new_place(self, place: Place) -> None:
        if not self._stopping:
            self._places.append(place)
            self._place_tasks.start_soon(
                self._keep_place, place, name=f"place of plugin {self.name}"
            )

    async def _keep_place(self, place: Place) -> None:
        """Keep one plugin running, until none is wanted here or it is given up."""
        try:
            await self._fill_place(place)
        finally:
            self._leave(place)
            place.settle(self._stopped() if self._stopping else None)
        if self.channel.waiting:
            self._on_wanted()

    async def _fill_place(self, place: Place) -> None:
        while True:
            member = place.member
            if member is None:
                member = place.member = await self._start_until_it_works(place)
                if member is None:
                    return
            why = await watch_over(
                place,
                member,
                self._plan,
                self.channel,
                is_surplus=functools.partial(self._is_surplus, member),
                on_idle=functools.partial(self._free, place, member),
            )
            if why in {"replace", "worn"}:
                await self._succeed(place, member)
                continue
            place.member = None
            if why in {"idle", "surplus"}:  # The place has been left already.
                place.settle()
                await self._retire(member, self._plan.pool.drain_timeout, "it was idle")
                return
            self._dismiss(member)
            words = await self._note_end(member, why)
            if not await self._may_restart(place, words, member.launch.exit):
                return

    def _free(self, place: Place, member: Member, why: End) -> None:
        """A plugin is not needed, and where there are no calls at all, neither are the others."""
        self._leave(place)
        self._dismiss(member)
        if why == "idle":
            for other in self._places:
                if other.member is not None:
                    other.idle.set()

    async def _start(self) -> Member:
        """Start one plugin.

        Raises:
            RPCPluginError: As `RPCPluginClient.start`.
        """
        launch = self.new_launch(anyio.Event())
        session = Session(
            launch.run,
            name=f"plugin session {self.name}",
            advice="stop the client",
            limit=self.settings.grpc_grace_period + _END_MARGIN,
        )
        # What one plugin's end is told to may stop them all.
        session.callers = self._callers
        session.spawn_in(self._tasks)
        self._starting.add(launch)
        try:
            await session.wait_started()
        except RPCPluginError:
            raise
        except Exception as exc:
            # Whatever is wrong with this one: others are looked after, and it may pass, as a lack
            # of descriptors does.
            msg = f"the plugin could not be started: {type(exc).__name__}: {exc}"
            raise RPCPluginError(msg, phase="launch") from exc
        finally:
            self._starting.discard(launch)
        member = Member(launch, session)
        self._members.add(member)
        self._emit("started", member)
        return member

    async def _start_until_it_works(self, place: Place) -> Member | None:
        """Start a plugin, again if the policy has it; None once it is given up."""
        while True:
            wanted = place.replacement
            try:
                member = await self._start()
            except RPCPluginError as exc:
                error = exc
            else:
                self._admit(member)
                if place.replacement is wanted:
                    place.settle()
                place.trial = False
                return member
            if wanted is not None and place.replacement is wanted:
                place.settle(error)
            if place.trial:
                return None
            words = f"could not be started: {error.message}"
            final = isinstance(error, ConfigError | SecurityError)
            if final and self._restarts is not None:
                self._give_up(words, error.exit, error)
                return None
            if not await self._may_restart(place, words, error.exit, error):
                return None

    async def _may_restart(
        self, place: Place, words: str, exit_: PluginExit | None, cause: Exception | None = None
    ) -> bool:
        """Wait as long as the policy says; False: there is no other start for now."""
        if place.asked.is_set():
            return True
        if self._restarts is None or self._plan.restart is None:
            if cause is not None:  # Otherwise a call that waits is reason enough to start again.
                self.channel.fail_waiting(functools.partial(self._error, words, exit_, cause))
            return False
        pause = self._restarts.next_pause(anyio.current_time())
        if pause is None:
            self._give_up(words, exit_, cause)
            return False
        self._emit("restarting", None, exit_=exit_, delay=pause, reason=words)
        self._life.restarting(words, pause)
        if self._plan.restart.calls == "fail":
            down = f"{words}; it is being started again"
            self.channel.refuse(functools.partial(self._error, down, exit_, cause))
        with anyio.move_on_after(pause):
            await place.asked.wait()
        return True

    def _give_up(self, words: str, exit_: PluginExit | None, cause: Exception | None) -> None:
        self._emit("gave_up", None, exit_=exit_, reason=words)
        text = "plugin %s is given up: it %s"
        self._life.tell("plugin.gave_up", logging.ERROR, text, self.name, words, reason=words)
        if len(self._places) == 1:  # this is the last one
            self._gave_up = True
            self.channel.refuse(
                functools.partial(self._error, f"is given up: it {words}", exit_, cause), final=True
            )

    def _error(
        self, words: str, exit_: PluginExit | None, cause: Exception | None
    ) -> ConnectionLost:
        error = ConnectionLost(f"the plugin {self.name} {words}", exit_)
        error.__cause__ = cause
        return error

    async def _succeed(self, place: Place, member: Member) -> None:
        """Replace a plugin that runs; keep it if its successor does not work."""
        replacement = place.replacement
        successor: Member | None = None
        try:
            successor = await self._start()
            restart = self._plan.restart
            limit = HEALTH_TIMEOUT if restart is None else restart.health_timeout
            await check_serving(successor.channel, limit)
        except (RPCPluginError, GRPCError) as exc:
            text = "plugin %s is not replaced: %s"
            self._life.tell(
                "plugin.not_replaced", logging.WARNING, text, self.name, exc, reason=str(exc)
            )
            if successor is not None:
                await self._end(successor, "it is not healthy")
            if replacement is None:
                member.refused += 1
            elif place.replacement is replacement:
                place.settle(exc)
            return
        place.member = successor
        self._admit(successor)
        self._dismiss(member)
        drain = self._plan.pool.drain_timeout if replacement is None else replacement.drain_timeout
        self._place_tasks.start_soon(self._retire, member, drain, "it was replaced")
        if place.replacement is replacement:
            place.settle()

    # Which plugins get calls.

    def _admit(self, member: Member) -> None:
        """Let calls go to a plugin, or keep it in reserve."""
        if len(self._serving) < self._most_serving():
            self._serve(member)
        else:
            self._spares.append(member)

    def _most_serving(self) -> int:
        pool = self._plan.pool
        return max(pool.size, len(self._places) - pool.spares)

    def _serve(self, member: Member) -> None:
        self._gave_up = False
        self._serving.append(member)
        self.channel.add(member.channel)

    def _dismiss(self, member: Member) -> None:
        """Send no more calls to a plugin; one in reserve takes its place."""
        if member in self._spares:
            self._spares.remove(member)
            return
        self._serving.remove(member)
        if self._spares and len(self._serving) < self._most_serving():
            self._serve(self._spares.pop(0))
        self.channel.remove(member.channel)

    async def _retire(self, member: Member, drain_timeout: float | None, reason: str) -> None:
        """Let the calls of a plugin end, and then end it."""
        drained = functools.partial(self.channel.wait_drained, member.channel)
        with anyio.move_on_after(drain_timeout):
            await first(drained, member.launch.exited.wait)
        await self._end(member, reason)

    async def _end(self, member: Member, reason: str) -> None:
        member.session.request_stop()
        await member.session.wait_finished()
        if member in self._members:  # Nobody else has ended it meanwhile.
            self._members.discard(member)
            self._last_exit = member.launch.exit
            self._emit("stopped", member, exit_=member.launch.exit, reason=reason)

    async def _note_end(self, member: Member, why: End) -> str:
        """Tell that a plugin has ended, or that it has to; return why, in words."""
        if why == "unhealthy":
            self._emit("unhealthy", member, reason=member.complaint)
            self._life.tell(
                "plugin.unhealthy",
                logging.WARNING,
                "plugin %s is not healthy: %s",
                self.name,
                member.complaint,
                pid=member.launch.pid,
                reason=member.complaint,
            )
            await self._end(member, "it is not healthy")
            return f"was not healthy: {member.complaint}"
        exit_ = self._last_exit = member.launch.exit
        words = "has ended" if exit_ is None else exit_.describe()
        self._members.discard(member)
        self._emit("exited", member, exit_=exit_, reason=words)
        return words

    def _emit(self, kind: Kind, member: Member | None, **facts: Any) -> None:
        pid = None if member is None else member.launch.pid
        facts["exit"] = facts.pop("exit_", None)
        self._hub.emit(PluginEvent(kind=kind, name=self.name, pid=pid, **facts))
