"""Why a plugin does not work: the true cause, found by looking at one thing after the other."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import stat
import struct
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import handshake
from pyvider_rpcplugin.exception import PluginExit, RPCPluginError, SecurityError
from pyvider_rpcplugin.testing._probe import Probe, call_anything, channel_to, probed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping, Sequence

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.handshake import HandshakeRecord

_LONGEST_SOCKET_PATH = 107
_HEAD = 4096
_MOST_SHOWN = 240
_SHORT = 3.0

# The machines of executables, as ELF numbers them, by what Python calls them.
_MACHINES = {
    3: {"i386", "i486", "i586", "i686", "x86"},
    40: {"arm", "armv6l", "armv7l", "armv8l"},
    62: {"x86_64", "amd64"},
    183: {"aarch64", "arm64"},
    21: {"ppc64", "ppc64le"},
    22: {"s390x"},
    243: {"riscv64", "riscv32"},
}
# What 32-bit programs also run on.
_ALSO = {"x86_64": {3}, "amd64": {3}, "aarch64": {40}, "arm64": {40}}
_OTHER_SYSTEMS = {
    b"MZ": "Windows",
    b"\xcf\xfa\xed\xfe": "macOS",
    b"\xce\xfa\xed\xfe": "macOS",
    b"\xca\xfe\xba\xbe": "macOS (or it is Java)",
}


class Finding(msgspec.Struct, frozen=True):
    """What is wrong with a plugin.

    Attributes:
        cause: A short name for it, always the same.
        summary: What is wrong, in one line.
        advice: What to do about it.
        evidence: What was seen: lines of output and the like.
    """

    cause: str
    summary: str
    advice: str
    evidence: tuple[str, ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """One thing that was looked at and found in order, or not.

    Attributes:
        what: What was looked at.
        ok: Whether it is in order.
        note: What was seen.
    """

    what: str
    ok: bool
    note: str


class Diagnosis(msgspec.Struct):
    """What came out.

    Attributes:
        facts: What was looked at, in this order.
        finding: What is wrong; None if nothing is.
    """

    facts: list[Fact]
    finding: Finding | None = None


class _Found(Exception):
    """Looking further makes no sense."""

    def __init__(self, cause: str, summary: str, advice: str, *evidence: str) -> None:
        super().__init__(summary)
        self.finding = Finding(cause, summary, advice, tuple(filter(None, evidence)))


def look_at_environment() -> list[Fact]:
    """Look at what plugins in general need here."""
    facts = [
        Fact("Python", sys.version_info >= (3, 11), platform.python_version()),
        Fact("system", sys.platform.startswith("linux"), platform.platform(terse=True)),
    ]
    folder = tempfile.gettempdir()
    longest = len(os.fsencode(folder)) + 50
    facts.append(
        Fact(
            "temporary folder",
            os.access(folder, os.W_OK | os.X_OK) and longest <= _LONGEST_SOCKET_PATH,
            folder if longest <= _LONGEST_SOCKET_PATH else f"{folder}: too long for sockets",
        )
    )
    said = sorted(name for name in os.environ if name.startswith("PLUGIN_"))
    facts.append(Fact("settings in the environment", True, ", ".join(said) or "none"))
    return facts


async def diagnose(
    command: Sequence[str],
    settings: Settings,
    *,
    env: Mapping[str, str] | None = None,
    inherit_env: bool | Collection[str] = True,
    cwd: str | None = None,
) -> Diagnosis:
    """Find out what is wrong with a plugin, by its file and by starting it.

    Args:
        command: The program and its arguments.
        settings: The host's.
        env: Variables for it.
        inherit_env: What it inherits.
        cwd: The folder to start it in.
    """
    diagnosis = Diagnosis(look_at_environment())
    patient = _Patient(list(command), settings, env or {}, inherit_env, cwd, diagnosis.facts)
    folder = await anyio.to_thread.run_sync(functools.partial(tempfile.mkdtemp, prefix="rpcd-"))
    try:
        patient.settings = msgspec.structs.replace(settings, unix_socket_dir=folder)
        await anyio.to_thread.run_sync(patient.look_at_program)
        await patient.look_at_start()
        if settings.auto_mtls:
            await patient.look_at_tls()
    except _Found as found:
        diagnosis.finding = found.finding
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(
                functools.partial(shutil.rmtree, folder, ignore_errors=True)
            )
    return diagnosis


class _Patient:
    def __init__(
        self,
        command: list[str],
        settings: Settings,
        env: Mapping[str, str],
        inherit_env: bool | Collection[str],
        cwd: str | None,
        facts: list[Fact],
    ) -> None:
        self.command = command
        self.settings = settings
        self._env = env
        self._inherit_env = inherit_env
        self._cwd = cwd
        self._facts = facts

    def _ok(self, what: str, note: str) -> None:
        self._facts.append(Fact(what, True, note))

    def _path(self, name: str) -> str:
        return os.path.join(self._cwd or "", name)

    # Its file.

    def look_at_program(self) -> None:
        """Look at the file, before anything is started."""
        program = self.command[0]
        if self._cwd is not None and not os.path.isdir(self._cwd):
            raise _Found(
                "working-folder", f"there is no folder {self._cwd} to start it in", "check it"
            )
        path = self._path(program) if os.sep in program else self._on_path(program)
        if not os.path.exists(path):
            advice = "check the path"
            if not os.path.isabs(program):
                advice += f": it counts from {os.path.abspath(self._cwd or os.curdir)}"
            raise _Found("not-found", f"there is no file {path}", advice)
        if os.path.isdir(path):
            raise _Found("is-folder", f"{path} is a folder", "give the path of a program")
        if not os.access(path, os.X_OK):
            mode = stat.filemode(os.stat(path).st_mode)
            advice = f"chmod +x {path}"
            if path.endswith(".py"):
                advice += f", or start it with its interpreter: python {program}"
            raise _Found("not-executable", f"{path} is not executable: {mode}", advice)
        self._ok("program", path)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if head.startswith(b"#!"):
            self._look_at_first_line(path, head.split(b"\n", 1)[0])
        elif head.startswith(b"\x7fELF"):
            self._look_at_machine(path, head)
        else:
            self._look_at_kind(path, head)
        self._look_at_script()
        for name in ("PLUGIN_SERVER_UNIX_SOCKET_PATH", "PLUGIN_UNIX_SOCKET_DIR"):
            value = self._env.get(name) or os.environ.get(name, "")
            if len(os.fsencode(value)) > _LONGEST_SOCKET_PATH:
                raise _Found(
                    "path-too-long",
                    f"{name} has {len(os.fsencode(value))} bytes: no socket can be there",
                    f"a socket's path has {_LONGEST_SOCKET_PATH} bytes at most",
                    value,
                )

    def _on_path(self, program: str) -> str:
        found = shutil.which(program, path=self._env.get("PATH"))
        if found is None:
            raise _Found(
                "not-found",
                f"there is no program {program} in any folder of PATH",
                "check its name, or give its path",
            )
        return found

    def _look_at_first_line(self, path: str, line: bytes) -> None:
        if line.endswith(b"\r"):
            raise _Found(
                "line-ends",
                f"the first line of {path} ends as on Windows: its interpreter is not found",
                f"sed -i 's/\\r$//' {path}",
                repr(line.decode(errors="replace")),
            )
        words = os.fsdecode(line[2:]).split()
        interpreter = words[0] if words else ""
        if not os.path.exists(interpreter):
            raise _Found(
                "no-interpreter",
                f"the interpreter of {path} does not exist: {interpreter or 'none is named'}",
                "change the first line, or install it",
                os.fsdecode(line),
            )
        wanted = [word for word in words[1:] if not word.startswith("-")]
        if os.path.basename(interpreter) == "env" and wanted and not shutil.which(wanted[0]):
            raise _Found(
                "no-interpreter",
                f"the interpreter of {path} is in no folder of PATH: {wanted[0]}",
                "change the first line, or install it",
                os.fsdecode(line),
            )
        self._ok("interpreter", " ".join(words))

    def _look_at_machine(self, path: str, head: bytes) -> None:
        order = "<" if head[5:6] == b"\x01" else ">"
        [machine] = struct.unpack(f"{order}H", head[18:20])
        here = platform.machine().lower()
        if here not in _MACHINES.get(machine, {here}) and machine not in _ALSO.get(here, set()):
            names = "/".join(sorted(_MACHINES.get(machine, {str(machine)})))
            raise _Found(
                "architecture",
                f"{path} is built for {names}, and this machine is {here}",
                "build it, or download it, for this machine",
            )
        self._ok("built for", here)

    def _look_at_kind(self, path: str, head: bytes) -> None:
        for magic, system in _OTHER_SYSTEMS.items():
            if head.startswith(magic) and not sys.platform.startswith(system.lower()[:3]):
                raise _Found(
                    "architecture",
                    f"{path} is a program for {system}",
                    "build it, or download it, for this system",
                )
        if not head:
            raise _Found("empty", f"{path} is empty", "build it, or download it, again")
        if os.name == "posix":
            raise _Found(
                "no-shebang",
                f"the system cannot execute {path}: it is neither a binary nor does it say what "
                "runs it",
                "let it begin with a line such as #!/usr/bin/env python3",
                repr(head[:40].decode(errors="replace")),
            )

    def _look_at_script(self) -> None:
        """A script that an interpreter is given has to be there, too."""
        if not os.path.basename(self.command[0]).startswith("python"):
            return
        for word in self.command[1:]:
            if word in {"-c", "-m"}:
                return
            if not word.startswith("-"):
                if not os.path.exists(self._path(word)):
                    raise _Found(
                        "script-not-found", f"there is no file {self._path(word)}", "check the path"
                    )
                self._ok("script", word)
                return

    # Its start.

    def _environment(self, certificate: str | None = None) -> dict[str, str]:
        return handshake.build_environment(
            self.settings,
            env=self._env,
            inherit_env=self._inherit_env,
            certificate=certificate,
        )

    async def look_at_start(self) -> None:
        """Start it as a host does, without encryption, and end it again."""
        try:
            async with probed(self.command, self._environment(), self._cwd) as probe:
                began = anyio.current_time()
                record = await self._line(probe)
                took = anyio.current_time() - began
                self._ok("handshake line", f"version {record.app_version}, {record.network}")
                self._facts.append(Fact("time to start", took < _SHORT, f"{took:.2f} s"))
                await self._reach(probe, record)
        except OSError as exc:
            msg = f"the system cannot start it: {(exc.strerror or str(exc)).lower()}"
            raise _Found("cannot-start", msg, "try the same command in a shell") from None

    async def _line(self, probe: Probe) -> HandshakeRecord:
        limit = self.settings.handshake_timeout
        seen = ""
        try:
            line, seen = await probe.handshake_line(limit)
        except RPCPluginError as exc:
            line, seen = None, exc.message
        if line is None:
            await self._no_line(probe, seen)
            raise AssertionError
        first = await probe.first_line(0)
        try:
            record = handshake.parse_handshake_line(line, versions=self.settings.protocol_versions)
        except SecurityError as exc:
            raise _Found(
                "certificate",
                "the certificate in its handshake line is none",
                "the sixth field is the DER of a certificate in base64, without padding",
                exc.message,
            ) from None
        except RPCPluginError as exc:
            raise self._wrong_line(line, exc) from None
        if first != line:
            self._facts.append(
                Fact("standard output", False, f"something else comes first: {_shown(first)}")
            )
        return record

    def _wrong_line(self, line: str, error: RPCPluginError) -> _Found:
        parts = [part.strip() for part in line.split("|")]
        mine = handshake.format_versions(self.settings.protocol_versions)
        if len(parts) > 4 and parts[4] == "netrpc":
            return _Found(
                "netrpc",
                "it speaks net/rpc, which programs in Go alone do",
                "have it serve gRPC: in Go, set GRPCServer in its ServeConfig",
                line,
            )
        if len(parts) > 3 and parts[0] != "1":
            return _Found(
                "core-version",
                f"it speaks version {parts[0]} of the handshake; there is no other than 1",
                "update the library that it is made with",
                line,
            )
        if (
            len(parts) > 3
            and parts[1].isdigit()
            and int(parts[1]) not in (self.settings.protocol_versions)
        ):
            return _Found(
                "version",
                f"it serves version {parts[1]} of the application's protocol, the host has {mine}",
                "update the plugin or the host; --versions says what the host has",
                line,
            )
        return _Found(
            "bad-line",
            error.message,
            error.hint or "the form is 1|VERSION|unix or tcp|ADDRESS|grpc",
            line,
        )

    async def _no_line(self, probe: Probe, seen: str) -> None:
        status = await probe.wait(0.5)
        errors = probe.stderr.text.strip()
        last = errors.splitlines()[-3:]
        if status is not None:
            await self._ended(status, errors, last)
        printed = bytes(probe.stdout.data)
        if probe.stdout.ended:
            raise _Found(
                "stdout-closed",
                "it closed its standard output without a handshake line",
                "the line is printed to standard output, which stays open",
                *last,
            )
        limit = f"{self.settings.handshake_timeout:g} seconds"
        if printed:
            raise _Found(
                "noise",
                f"it printed something, but no handshake line within {limit}",
                "let a plugin print nothing else to standard output; use standard error",
                _shown(printed.decode(errors="replace")),
                *last,
            )
        raise _Found(
            "silent",
            f"it runs, but printed nothing within {limit}",
            "it hangs, or is slow, or does not flush its standard output (in Python: flush=True)",
            seen,
            *last,
        )

    async def _ended(self, status: int, errors: str, last: list[str]) -> None:
        how = PluginExit(status).describe()
        if status < 0:
            advice = "it crashed, or somebody ended it"
            if status == -9:
                advice = "somebody killed it: mostly for want of memory (see dmesg)"
            raise _Found("killed", f"it {how} before its handshake line", advice, *last)
        for pattern, cause, advice in _PYTHON_ERRORS:
            if re.search(pattern, errors, re.MULTILINE):
                raise _Found(cause, last[-1], advice, *last)
        if re.search(r"path too long|too long a path|takes at most \d+ bytes", errors):
            raise _Found(
                "path-too-long",
                "the path of its socket is too long",
                f"a socket's path has {_LONGEST_SOCKET_PATH} bytes at most: use a shorter folder",
                *last,
            )
        if status == 1 and "Traceback" not in errors and await self._same_by_hand(errors):
            raise _Found(
                "cookie",
                f"it does not know the cookie of this host, {self.settings.magic_cookie_key}",
                "name the plugin's own: --cookie NAME=VALUE",
                *last,
            )
        advice = "its last words say why"
        if status == 0:
            advice = "is this the plugin, and does it serve? In Python: plugin_server(...).run()"
        raise _Found("exited", f"it {how} before its handshake line", advice, *last)

    async def _same_by_hand(self, errors: str) -> bool:
        """Whether it takes the cookie for none: it says so, or says the same without it."""
        if re.search(r"\bcookie\b", errors, re.IGNORECASE):
            return True
        if not re.search(r"\bplugins?\b", errors, re.IGNORECASE):
            return False
        environment = self._environment()
        del environment[self.settings.magic_cookie_key]
        async with probed(self.command, environment, self._cwd) as probe:
            status = await probe.wait(self.settings.handshake_timeout)
        return status == 1 and not probe.stdout.data and probe.stderr.text.strip() == errors

    # Its socket.

    async def _reach(self, probe: Probe, record: HandshakeRecord) -> None:
        if record.certificate is not None:
            self._facts.append(
                Fact("encryption", True, "by certificates of its own: not looked at any further")
            )
            return
        await anyio.to_thread.run_sync(self._look_at_socket, record)
        try:
            with anyio.fail_after(self.settings.connection_timeout):
                async with channel_to(record, None) as channel:
                    await call_anything(channel, _SHORT)
                    await self._health(channel)
                    await self._end(probe, channel)
        except (RPCPluginError, GRPCError, TimeoutError) as exc:
            status = await probe.wait(0.25)
            if status is not None and status != 0:
                raise _Found(
                    "died",
                    f"it {PluginExit(status).describe()} when it was called",
                    "its last words say why",
                    *probe.stderr.text.strip().splitlines()[-3:],
                ) from None
            said = _message(exc)
            refused = "refused" in said.lower() or "nobody listens" in said.lower()
            where = f"{record.network} {record.address}"
            if refused:
                raise _Found(
                    "nobody-listens",
                    f"nobody listens at {where}",
                    "it has to listen before it prints its handshake line",
                    said,
                ) from None
            raise _Found(
                "not-grpc",
                f"what listens at {where} does not speak gRPC",
                "does it serve gRPC there, without TLS that was not asked for?",
                said,
            ) from None

    def _look_at_socket(self, record: HandshakeRecord) -> None:
        path = record.address
        if record.network != "unix":
            return
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise _Found(
                "path-too-long",
                f"the path of its socket has {len(os.fsencode(path))} bytes",
                f"it may have {_LONGEST_SOCKET_PATH}: use a shorter folder",
                path,
            )
        if not os.path.exists(path):
            raise _Found(
                "socket-missing",
                f"its handshake line says {path}, and there is nothing",
                "does it see another file system, as in a container?",
            )
        if not os.access(path, os.R_OK | os.W_OK):
            raise _Found(
                "socket-permission",
                f"this user may not connect to {path}",
                "it runs as another user: PLUGIN_UNIX_SOCKET_GROUP lets a group in",
                stat.filemode(os.stat(path).st_mode),
            )

    async def _health(self, channel: Any) -> None:
        from pyvider_rpcplugin.services import (  # noqa: PLC0415 - when it has started
            ServingStatus,
            check_health,
        )

        try:
            status = await check_health(channel, timeout=_SHORT)
        except GRPCError as exc:
            self._facts.append(Fact("health", False, _message(exc)))
            return
        if status is not ServingStatus.SERVING:
            raise _Found(
                "unhealthy",
                f"it says of itself that it is {status.name}",
                "its log may say why",
            )
        self._ok("health", "SERVING")

    async def _end(self, probe: Probe, channel: Any) -> None:
        from pyvider_rpcplugin.services import request_shutdown  # noqa: PLC0415 - see above

        with anyio.move_on_after(_SHORT):
            try:
                await request_shutdown(channel)
            except GRPCError as exc:
                # Some close the connection instead of answering.
                if exc.status.name == "UNIMPLEMENTED":
                    self._facts.append(Fact("end", False, "it cannot be asked to end"))
                    return
            if await probe.wait(_SHORT) is not None:
                self._ok("end", f"it {PluginExit(probe.status).describe()} when asked to end")
                return
        raise _Found(
            "does-not-end",
            f"it still ran {_SHORT:g} seconds after it was asked to end",
            "hosts have to kill it: does something keep its program from returning?",
        )

    async def look_at_tls(self) -> None:
        """Start it again as a host does that wants mutual TLS."""
        from pyvider_rpcplugin.crypto import (  # noqa: PLC0415 - takes its time
            auto_client_context,
            make_certificate,
        )

        own = make_certificate()
        async with probed(self.command, self._environment(own.pem), self._cwd) as probe:
            record = await self._line(probe)
            if record.certificate is None:
                raise _Found(
                    "no-mtls",
                    "it does not encrypt its connection, which this host wants",
                    "let it use AutoMTLS, or set auto_mtls=false for the host (--no-mtls)",
                )
            try:
                context: ssl.SSLContext = auto_client_context(own, record.certificate)
                with anyio.fail_after(self.settings.connection_timeout):
                    async with channel_to(record, context) as channel:
                        await call_anything(channel, _SHORT)
            except (RPCPluginError, GRPCError, TimeoutError) as exc:
                raise _Found(
                    "tls",
                    "it cannot be reached over mutual TLS",
                    "is the certificate in its handshake line the one that it shows, and does it "
                    "let in the one of PLUGIN_CLIENT_CERT?",
                    _message(exc),
                ) from None
            self._ok("mutual TLS", "works")


_PYTHON_ERRORS = (
    (
        r"^(ModuleNotFoundError|ImportError)\b",
        "import-error",
        "install what is missing where the plugin's interpreter finds it",
    ),
    (r"^(SyntaxError|IndentationError)\b", "syntax-error", "the program is no correct Python"),
    (r"cannot open shared object file", "library", "install the shared library"),
)


def _message(error: BaseException) -> str:
    if isinstance(error, GRPCError):
        return f"{error.status.name}: {error.message or ''}"
    return str(error) or "there was no answer in time"


def _shown(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 3] + "..."
