"""Whether a program is a correct plugin, in whatever language it is written.

`check_plugin` starts the program several times, as hosts do and as they should not, and looks at
what it does. The report names each rule, and why it does not hold where it does not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import handshake
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.config import load_settings
from pyvider_rpcplugin.exception import RPCPluginError

from ._probe import Probe, call_anything, channel_to, probed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import GeneratedCertificate
    from pyvider_rpcplugin.handshake import HandshakeRecord
    from pyvider_rpcplugin.rpc import Channel

__all__ = ["RULES", "CheckResult", "ContractReport", "check_plugin"]

RULES: Mapping[str, str] = {
    "cookie-missing": "started by hand, it says so on its standard error and exits with status 1",
    "cookie-wrong": "started with another cookie, it does the same",
    "line": "it prints a handshake line that hosts can read",
    "line-alone": "nothing comes before the handshake line on the standard output",
    "version": "it serves the highest of the offered versions that it has",
    "version-lower": "it serves a lower version when no other is offered",
    "socket-folder": "its socket is where the host said",
    "port-range": "its port is in the range that the host said",
    "plain": "it is called without encryption when the host does not ask for it",
    "health": "its health service says that `plugin` is SERVING",
    "health-unknown": "its health service says NOT_FOUND of what it does not know",
    "unknown-method": "a method that it does not have is UNIMPLEMENTED",
    "stdio": "it has the service for its output, plugin.GRPCStdio",
    "broker": "it has the broker's service, plugin.GRPCBroker",
    "interrupt": "Ctrl-C in the terminal does not end it",
    "shutdown": "it ends within 2 seconds when its host asks it to",
    "shutdown-status": "its exit status is then 0",
    "socket-removed": "its socket is removed then",
    "mtls-certificate": "it shows a certificate when the host asks for mutual TLS",
    "mtls": "it is called over mutual TLS",
    "mtls-strangers": "it then serves nobody who has another certificate, or none",
    "mtls-plain": "it then serves nobody without TLS",
    "terminate": "it ends within 2 seconds at SIGTERM",
    "host-gone": "it ends by itself when its host was killed",
}
"""What is checked, by the names of the rules."""

_RECOMMENDED = frozenset({"host-gone"})
"""Rules that hosts can do without: go-plugin's own plugins do not follow them."""

_MOST_SHOWN = 200
_END = 2.0
_SETTLE = 0.3
_CALL = 5.0
_HOST = """
import signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         start_new_session=True)
print(child.pid, flush=True)
print(child.stdout.readline().decode(errors="replace"), end="", flush=True)
signal.pause()
"""


class CheckResult(msgspec.Struct, frozen=True):
    """Whether one rule holds.

    Attributes:
        name: The rule's, one of `RULES`.
        outcome: "passed", "failed", or "skipped" where it does not apply or could not be looked at.
        why: Why it failed or was skipped.
        required: Whether hosts rely on it; False for what is only recommended.
    """

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    why: str = ""
    required: bool = True

    @property
    def rule(self) -> str:
        """What it says."""
        return RULES[self.name]


class ContractReport(msgspec.Struct, frozen=True):
    """What came out of `check_plugin`. Printed, it is a list for people.

    Attributes:
        command: What was started.
        checks: One for each rule, in the order of `RULES`.
    """

    command: tuple[str, ...]
    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no rule that hosts rely on was found broken."""
        return not any(check.required for check in self.failures)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The rules that do not hold, those that are only recommended too."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def __getitem__(self, name: str) -> CheckResult:
        """The result for a rule."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        found: dict[str, Any] = {"passed": self.passed, **msgspec.to_builtins(self)}
        for check in found["checks"]:
            check["rule"] = RULES[check["name"]]
        return found

    def __str__(self) -> str:
        marks = {"passed": "ok  ", "failed": "FAIL", "skipped": "-   "}
        lines: list[str] = []
        for check in self.checks:
            mark = marks[check.outcome]
            if check.outcome == "failed" and not check.required:
                mark = "note"
            lines.append(f"{mark}  {check.name}: {check.rule}")
            if check.why:
                lines.append(f"      {check.why}")
        noted = sum(not check.required for check in self.failures)
        counts = {
            "passed": sum(check.outcome == "passed" for check in self.checks),
            "failed": len(self.failures) - noted,
            "noted": noted,
            "skipped": sum(check.outcome == "skipped" for check in self.checks),
        }
        lines.append(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
        return "\n".join(lines)


class _Broken(Exception):
    """A rule that does not hold; the text says why."""


class _NotHere(Exception):
    """A rule that does not apply; the text says why."""


async def check_plugin(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    inherit_env: bool | Collection[str] = True,
    cwd: str | None = None,
    **settings: Any,
) -> ContractReport:
    """Find out whether a program is a correct plugin.

    It is started about six times, and ended each time. What is wrong with the plugin is in the
    report, and not raised.

    Args:
        command: The program and its arguments.
        env: Variables for it, as for `plugin_client`.
        inherit_env: What it inherits, likewise.
        cwd: The folder to start it in.
        settings: The host's settings, in lower case and without prefix: `magic_cookie_key` and
            `magic_cookie_value` are what the plugin wants, `protocol_versions` what it has.

    Raises:
        ConfigError: A setting is wrong.
        OSError: The program cannot be started at all.

    Cancellation:
        Ends the plugin that runs.
    """
    chosen = load_settings(None, overrides=settings, side="host")
    checks = _Checks([os.fspath(word) for word in command], chosen, env, inherit_env, cwd)
    await checks.run()
    return ContractReport(tuple(checks.command), tuple(checks.results[name] for name in RULES))


class _Checks:
    """All of them, one start after the other."""

    def __init__(
        self,
        command: list[str],
        settings: Settings,
        env: Mapping[str, str] | None,
        inherit_env: bool | Collection[str],
        cwd: str | None,
    ) -> None:
        self.command = command
        self.settings = settings
        self.results: dict[str, CheckResult] = {}
        self._env = env
        self._inherit_env = inherit_env
        self._cwd = cwd

    async def run(self) -> None:
        """Look at all rules."""
        folder = await anyio.to_thread.run_sync(functools.partial(tempfile.mkdtemp, prefix="rpcc-"))
        try:
            self.settings = msgspec.structs.replace(self.settings, unix_socket_dir=folder)
            await self._rule("cookie-missing", functools.partial(self._by_hand, None))
            await self._rule("cookie-wrong", functools.partial(self._by_hand, "of-somebody-else"))
            await self._plain()
            await self._encrypted()
            await self._rule("host-gone", self._host_gone)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(
                    functools.partial(shutil.rmtree, folder, ignore_errors=True)
                )
        for name in RULES:
            self._note(name, "skipped", "the plugin did not get that far")

    def _note(self, name: str, outcome: Any, why: str = "") -> None:
        if name not in self.results:
            why = " ".join(why.split())[:_MOST_SHOWN]
            self.results[name] = CheckResult(name, outcome, why, name not in _RECOMMENDED)

    async def _rule(self, name: str, look: Callable[[], Awaitable[object] | None]) -> bool:
        """Look at one rule; return whether it holds."""
        try:
            with anyio.fail_after(self.settings.handshake_timeout + _CALL):
                # What only looks at something has nothing to wait for.
                if (answer := look()) is not None:
                    await answer
        except _Broken as exc:
            self._note(name, "failed", str(exc))
        except _NotHere as exc:
            self._note(name, "skipped", str(exc))
        except (RPCPluginError, GRPCError, TimeoutError) as exc:
            self._note(name, "failed", _said(exc))
        else:
            self._note(name, "passed")
            return True
        return False

    def _environment(
        self, versions: Sequence[int] | None = None, certificate: str | None = None
    ) -> dict[str, str]:
        return handshake.build_environment(
            self.settings,
            env=self._env,
            inherit_env=self._inherit_env,
            versions=versions,
            certificate=certificate,
        )

    # Without the cookie.

    async def _by_hand(self, cookie: str | None) -> None:
        environment = self._environment()
        del environment[self.settings.magic_cookie_key]
        if cookie is not None:
            environment[self.settings.magic_cookie_key] = cookie
        async with probed(self.command, environment, self._cwd) as probe:
            status = await probe.wait(self.settings.handshake_timeout)
        if probe.stdout.data:
            msg = f"it printed to its standard output: {_shown(probe.stdout.text)}"
            raise _Broken(msg)
        if status is None:
            msg = f"it still ran after {self.settings.handshake_timeout:g} seconds"
            raise _Broken(msg)
        if status != 1:
            msg = f"its exit status was {status}"
            raise _Broken(msg)
        if not probe.stderr.data.strip():
            msg = "it said nothing on its standard error"
            raise _Broken(msg)

    # With it.

    async def _greeted(self, probe: Probe, versions: Sequence[int]) -> HandshakeRecord | None:
        """Wait for the handshake line, and look at it."""
        record: HandshakeRecord | None = None
        line = ""

        async def read() -> None:
            nonlocal line, record
            line = await self._line(probe)
            record = handshake.parse_handshake_line(line, versions=versions)

        async def alone() -> None:
            first = await probe.first_line(0)
            if first != line:
                msg = f"it printed: {_shown(first or '')}"
                raise _Broken(msg)

        if await self._rule("line", read):
            await self._rule("line-alone", alone)
        return record

    async def _line(self, probe: Probe) -> str:
        """The handshake line, after whatever comes before it."""
        line, seen = await probe.handshake_line(self.settings.handshake_timeout)
        if line is not None:
            return line
        status = await probe.wait(_SETTLE)
        ended = "it still runs" if status is None else f"its exit status is {status}"
        said = probe.stderr.text.strip().splitlines()
        msg = f"there was none within {self.settings.handshake_timeout:g} seconds: "
        msg += f"{seen}; {ended}"
        if said:
            msg += f", its last words: {_shown(said[-1])}"
        raise _Broken(msg)

    async def _plain(self) -> None:
        """A start without encryption, from the line to the end that the host asks for."""
        mine = sorted(self.settings.protocol_versions)
        # One that the plugin does not have, and higher than all others.
        offered = [*mine, mine[-1] + 1000]
        async with probed(self.command, self._environment(offered), self._cwd) as probe:
            record = await self._greeted(probe, offered)
            if record is None:
                return
            await self._rule("version", functools.partial(_same_version, record, mine[-1]))
            await self._rule("socket-folder", functools.partial(self._in_folder, record))
            await self._rule("port-range", functools.partial(self._in_range, record))
            if await self._rule("plain", functools.partial(_call_plain, record)):
                async with channel_to(record, None) as channel:
                    await self._services(channel)
                    await self._rule("interrupt", functools.partial(_interrupted, probe, channel))
                    await self._rule("shutdown", functools.partial(_shut_down, probe, channel))
            if self.results.get("shutdown", _UNKNOWN).outcome == "passed":
                await self._rule("shutdown-status", functools.partial(_status_is_0, probe))
                await self._rule("socket-removed", functools.partial(_removed, record))

    async def _services(self, channel: Channel) -> None:
        """Look at what it serves beside its own; all at once, since some of it takes time."""
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            "health": functools.partial(_healthy, channel),
            "health-unknown": functools.partial(_not_found, channel),
            "unknown-method": functools.partial(_unimplemented, channel),
            "stdio": functools.partial(
                _streams, channel, "/plugin.GRPCStdio/StreamStdio", Cardinality.UNARY_STREAM
            ),
            "broker": functools.partial(
                _streams, channel, "/plugin.GRPCBroker/StartStream", Cardinality.STREAM_STREAM
            ),
        }
        with unwrapped():
            async with anyio.create_task_group() as tg:
                for name, look in looks.items():
                    tg.start_soon(self._rule, name, look)

    async def _encrypted(self) -> None:
        """A start with mutual TLS, from the line to SIGTERM."""
        from pyvider_rpcplugin.crypto import make_certificate  # noqa: PLC0415 - takes its time

        own, stranger = make_certificate(), make_certificate()
        mine = sorted(self.settings.protocol_versions)
        environment = self._environment(mine[:1], own.pem)
        async with probed(self.command, environment, self._cwd) as probe:
            try:
                record = handshake.parse_handshake_line(await self._line(probe), versions=mine)
            except (_Broken, RPCPluginError) as exc:
                self._note("mtls-certificate", "failed", _said(exc))
                return

            async def lower() -> None:
                if len(mine) < 2:
                    msg = "protocol_versions names one version alone"
                    raise _NotHere(msg)
                _same_version(record, mine[0])

            async def certificate() -> None:
                if record.certificate is None:
                    msg = "its handshake line has none"
                    raise _Broken(msg)

            await self._rule("version-lower", lower)
            if await self._rule("mtls-certificate", certificate):
                await self._rule("mtls", functools.partial(_call_once, record, own))
                await self._rule("mtls-strangers", functools.partial(_refused, record, stranger))
                await self._rule("mtls-plain", functools.partial(_refused_plain, record))
            await self._rule("terminate", functools.partial(_terminated, probe))

    def _in_folder(self, record: HandshakeRecord) -> None:
        folder = self.settings.unix_socket_dir
        if record.network != "unix":
            msg = "it listens on tcp"
            raise _NotHere(msg)
        if os.path.realpath(folder) != os.path.commonpath(
            [os.path.realpath(folder), os.path.realpath(record.address)]
        ):
            msg = f"it is at {record.address}, and PLUGIN_UNIX_SOCKET_DIR was {folder}"
            raise _Broken(msg)

    def _in_range(self, record: HandshakeRecord) -> None:
        if record.network != "tcp":
            msg = "it listens on a Unix socket"
            raise _NotHere(msg)
        environment = self._environment()
        low, high = int(environment["PLUGIN_MIN_PORT"]), int(environment["PLUGIN_MAX_PORT"])
        port = int(record.address.rpartition(":")[2])
        if not low <= port <= high:
            msg = f"it is {port}, and the range was {low} to {high}"
            raise _Broken(msg)

    async def _host_gone(self) -> None:
        if not sys.platform.startswith("linux"):
            msg = "only Linux tells"
            raise _NotHere(msg)
        if self.results.get("line", _UNKNOWN).outcome != "passed":
            msg = "it prints no handshake line"
            raise _NotHere(msg)
        # The other program is the host here.
        command = [sys.executable, "-c", _HOST, *self.command]
        pid = 0
        try:
            async with probed(command, self._environment(), self._cwd) as host:
                line = await host.first_line(self.settings.handshake_timeout)
                pid = int(line) if line is not None else 0
                with anyio.move_on_after(self.settings.handshake_timeout):
                    while host.stdout.data.count(b"\n") < 2 and not host.stdout.ended:
                        await host.stdout.change()
            with anyio.move_on_after(_END) as scope:
                while pid and _runs(pid):  # noqa: ASYNC110 - it is not a child of ours
                    await anyio.sleep(0.02)
            if scope.cancelled_caught:
                msg = f"it still ran {_END:g} seconds later"
                raise _Broken(msg)
        finally:
            if pid and _runs(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


_UNKNOWN = CheckResult("line", "skipped")


# The rules, one by one.


def _same_version(record: HandshakeRecord, wanted: int) -> None:
    if record.app_version != wanted:
        msg = f"it serves version {record.app_version}, and not {wanted}"
        raise _Broken(msg)


async def _call_plain(record: HandshakeRecord) -> None:
    if record.certificate is not None:
        msg = "its handshake line has a certificate, which nobody asked for"
        raise _Broken(msg)
    async with channel_to(record, None) as channel:
        await call_anything(channel)


async def _healthy(channel: Channel) -> None:
    from pyvider_rpcplugin.services import ServingStatus, check_health  # noqa: PLC0415 - see above

    status = await check_health(channel, "plugin", timeout=_CALL)
    if status is not ServingStatus.SERVING:
        msg = f"it says {status.name}"
        raise _Broken(msg)


async def _not_found(channel: Channel) -> None:
    from pyvider_rpcplugin.services import check_health  # noqa: PLC0415 - see above

    try:
        status = await check_health(channel, "a.service.that.nobody.has", timeout=_CALL)
    except GRPCError as exc:
        if exc.status is not Status.NOT_FOUND:
            raise
        return
    msg = f"it says {status.name}"
    raise _Broken(msg)


async def _unimplemented(channel: Channel) -> None:
    try:
        async with channel.request(
            "/a.service.that.nobody/Has", Cardinality.UNARY_UNARY, _Raw, _Raw, timeout=_CALL
        ) as call:
            await call.send_message(_Raw(), end=True)
            await call.recv_message()
    except GRPCError as exc:
        if exc.status is not Status.UNIMPLEMENTED:
            raise
        return
    msg = "it was answered"
    raise _Broken(msg)


class _Raw(bytes):
    """A message that nobody looks into."""

    __slots__ = ()

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which codecs call
        return self

    @classmethod
    def FromString(cls, data: bytes) -> _Raw:  # noqa: N802
        return cls(data)


async def _streams(channel: Channel, path: str, kind: Cardinality) -> None:
    """A stream that stays open: what is not there is refused at once."""
    call = channel.request(path, kind, _Raw, _Raw, timeout=_CALL)
    try:
        async with call:
            if kind is Cardinality.UNARY_STREAM:
                await call.send_message(_Raw(), end=True)
            else:
                await call.send_request()
            with anyio.move_on_after(_SETTLE):
                await call.recv_message()
                return
            await call.cancel()
    except GRPCError as exc:
        if exc.status is Status.UNIMPLEMENTED:
            msg = "it has not"
            raise _Broken(msg) from None
        if exc.status is not Status.CANCELLED:
            raise


async def _interrupted(probe: Probe, channel: Channel) -> None:
    probe.send_signal(signal.SIGINT)
    status = await probe.wait(_SETTLE)
    if status is not None:
        msg = f"it ended, with status {status}"
        raise _Broken(msg)
    await call_anything(channel)


async def _shut_down(probe: Probe, channel: Channel) -> None:
    from pyvider_rpcplugin.services import request_shutdown  # noqa: PLC0415 - see above

    failure: GRPCError | None = None
    with anyio.move_on_after(_END) as scope:
        try:
            await request_shutdown(channel)
        except GRPCError as exc:
            failure = exc  # Some close the connection instead of answering.
        if failure is None or failure.status is not Status.UNIMPLEMENTED:
            await probe.wait(_END)
    if probe.status is None:
        if failure is not None and not scope.cancelled_caught:
            msg = f"it still runs; {_said(failure)}"
            raise _Broken(msg)
        msg = "it still runs"
        raise _Broken(msg)


def _status_is_0(probe: Probe) -> None:
    if probe.status != 0:
        msg = f"it was {probe.status}"
        raise _Broken(msg)


def _removed(record: HandshakeRecord) -> None:
    if record.network != "unix":
        msg = "it listens on tcp"
        raise _NotHere(msg)
    if os.path.lexists(record.address):
        msg = f"it is still there: {record.address}"
        raise _Broken(msg)


async def _terminated(probe: Probe) -> None:
    if not hasattr(signal, "SIGKILL"):
        msg = "this system has no such signal"
        raise _NotHere(msg)
    probe.send_signal(signal.SIGTERM)
    if await probe.wait(_END) is None:
        msg = "it still runs"
        raise _Broken(msg)


def _context(record: HandshakeRecord, own: GeneratedCertificate | None) -> ssl.SSLContext:
    from pyvider_rpcplugin.crypto import auto_client_context  # noqa: PLC0415 - loads ssl

    assert record.certificate is not None
    return auto_client_context(own, record.certificate)


async def _call_once(record: HandshakeRecord, own: GeneratedCertificate) -> None:
    async with channel_to(record, _context(record, own)) as channel:
        await call_anything(channel)


async def _refused(record: HandshakeRecord, stranger: GeneratedCertificate) -> None:
    await _not_served(record, _context(record, stranger), "another certificate")
    await _not_served(record, _context(record, None), "no certificate")


async def _refused_plain(record: HandshakeRecord) -> None:
    await _not_served(record, None, "no TLS")


async def _not_served(record: HandshakeRecord, context: ssl.SSLContext | None, who: str) -> None:
    with anyio.move_on_after(_END):
        try:
            async with channel_to(record, context) as channel:
                await call_anything(channel)
        except (RPCPluginError, GRPCError):
            return
        msg = f"it answers who has {who}"
        raise _Broken(msg)


def _runs(pid: int) -> bool:
    """Whether a process runs that is not a child of ours."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def _said(error: BaseException) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message or ''}"
    if isinstance(error, TimeoutError):
        return "there was no answer in time"
    return str(error)


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 100 else line[:97] + "...")
