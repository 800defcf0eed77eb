"""The commands, and what they take."""

from __future__ import annotations

import importlib
import logging
import operator
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import msgspec
import typer
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from pyvider_rpcplugin import RestartPolicy, __version__, plugin_client
from pyvider_rpcplugin.testing.contract import check_plugin

from ._installed import (
    From,
    Places,
    chosen,
    find,
    listed,
    show as show_installed,
    words_of,
)
from ._new import Form  # noqa: TC001 - typer reads the annotations
from ._options import (
    FAILED,
    OF_A_PLUGIN,
    WRONG_USAGE,
    AsJSON,
    Assignments,
    Command,
    Cookie,
    NoMTLS,
    Timeout,
    Trio,
    Variables,
    Versions,
    console,
    errors,
    host_options,
    pairs,
    print_json,
    run,
    told_errors,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyvider_rpcplugin import PluginEvent

app = typer.Typer(
    help="Look at plugins, call them, and find out what is wrong with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
certs = typer.Typer(help="Make certificates, show them, and check when they expire.")
gen = typer.Typer(help="Generate code, and .proto files.")
app.add_typer(certs, name="certs", no_args_is_help=True)
app.add_typer(gen, name="gen", no_args_is_help=True)

_EXPIRES_SOON = 30


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Look at plugins, call them, and find out what is wrong with them."""


@app.command("inspect", context_settings=OF_A_PLUGIN)
def inspect_command(
    command: Command,
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    no_mtls: NoMTLS = False,
    timeout: Timeout = None,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Start a plugin, and show what it is and what it serves."""
    from ._inspect import inspect_plugin, show  # noqa: PLC0415 - not for the others

    options = host_options(cookie, versions, env, setting, no_mtls, timeout)

    async def body() -> int:
        seen = await inspect_plugin(chosen(command, place), options)
        print_json(seen) if as_json else show(seen, console)
        return 0 if seen["health"] == "SERVING" else FAILED

    run(body, trio=trio, as_json=as_json)


@app.command("call", context_settings=OF_A_PLUGIN)
def call_command(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND... -- METHOD [JSON]...",
            help="The plugin's program and its arguments; the method, as service/method; and the "
            "messages for it, or - to read them from standard input, one a line.",
            show_default=False,
        ),
    ],
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    no_mtls: NoMTLS = False,
    timeout: Timeout = None,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", metavar="SECONDS", help="Time for the call."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE", help="What is sent along."),
    ] = None,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Call a method of a plugin: JSON in, and one line of JSON out for each reply."""
    from ._calls import call  # noqa: PLC0415 - not for the others

    if "--" not in command:
        msg = "the method comes after the plugin's command and --"
        raise typer.BadParameter(msg)
    program, called = _split(command)
    if not program or not called:
        msg = "a plugin's command, --, and a method are needed"
        raise typer.BadParameter(msg)
    options = host_options(cookie, versions, env, setting, no_mtls, timeout)
    sent = pairs("--metadata", metadata)

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    async def body() -> int:
        plugin = chosen(program, place)
        async with plugin_client(plugin, env=options.env, **options.settings) as client:
            await call(
                client, called[0], _messages(called[1:]), tell, deadline=deadline, metadata=sent
            )
        return 0

    run(body, trio=trio, as_json=as_json)


def _split(command: list[str]) -> tuple[list[str], list[str]]:
    """The plugin's command, and what comes after it."""
    if "--" not in command:
        return command, []
    # The last one: the plugin may have one of its own.
    at = len(command) - 1 - command[::-1].index("--")
    return command[:at], command[at + 1 :]


async def _messages(given: list[str]) -> AsyncIterator[str]:
    for one in given:
        if one != "-":
            yield one
            continue
        async for line in anyio.wrap_file(sys.stdin):
            if line.strip():
                yield line


@app.command("run", context_settings=OF_A_PLUGIN)
def run_command(
    command: Command,
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    no_mtls: NoMTLS = False,
    timeout: Timeout = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do not start it again when it has ended.")
    ] = False,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Keep a plugin running until Ctrl-C, and show what it logs and prints."""
    options = host_options(cookie, versions, env, setting, no_mtls, timeout)
    options.settings.setdefault("log_level", "DEBUG")
    _show_logs(as_json=as_json)
    status = 0

    async def body() -> int:
        over = anyio.Event()
        program = chosen(command, place)

        def note(event: PluginEvent) -> None:
            nonlocal status
            _show_event(event, as_json=as_json)
            if event.kind == "gave_up" or (once and event.kind == "exited"):
                status = FAILED
                over.set()

        async def stop_at_signal() -> None:
            numbers = [signal.SIGINT, signal.SIGTERM]
            with anyio.open_signal_receiver(*numbers) as signals:
                async for _ in signals:
                    over.set()
                    return

        async with anyio.create_task_group() as tg:
            tg.start_soon(stop_at_signal)
            async with plugin_client(
                program,
                env=options.env,
                restart=RestartPolicy(),
                on_event=note,
                sync_stdout=lambda data: _show_output(data, as_json=as_json),
                **options.settings,
            ):
                await over.wait()
            tg.cancel_scope.cancel()
        return status

    run(body, trio=trio, as_json=as_json)


def _show_logs(*, as_json: bool) -> None:
    handler: logging.Handler
    if as_json:
        handler = _JSONHandler()
    elif errors.is_terminal:
        handler = RichHandler(console=errors, show_path=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    # Of plugins, all that they say; of the library's own log, what is wrong.
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("pyvider_rpcplugin.plugin").setLevel(logging.DEBUG)


class _JSONHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as a line."""
        print_json({"log": record.getMessage(), "level": record.levelname, "logger": record.name})


def _show_event(event: PluginEvent, *, as_json: bool) -> None:
    if as_json:
        said = msgspec.to_builtins(event)
        print_json({"event": said.pop("kind"), **said})
        return
    parts = [f"[bold]{event.kind}[/bold]"]
    if event.pid is not None:
        parts.append(f"process {event.pid}")
    if event.exit is not None:
        parts.append(f"it {event.exit.describe()}")
    if event.delay is not None:
        parts.append(f"again in {event.delay:.1f} s")
    if event.reason:
        parts.append(escape(event.reason))
    console.print(": ".join([parts[0], ", ".join(parts[1:])]))


def _show_output(data: bytes, *, as_json: bool) -> None:
    if as_json:
        print_json({"stdout": data.decode(errors="replace")})
        return
    sys.stdout.write(data.decode(errors="replace"))
    sys.stdout.flush()


@app.command("doctor", context_settings=OF_A_PLUGIN)
def doctor_command(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="The plugin's program and its arguments.", show_default=False),
    ] = None,
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    no_mtls: NoMTLS = False,
    timeout: Timeout = None,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Find out why a plugin does not work; without one, look at this machine alone."""
    from ._doctor import Diagnosis, diagnose, look_at_environment  # noqa: PLC0415 - not for others

    options = host_options(cookie, versions, env, setting, no_mtls, timeout)

    async def body() -> int:
        diagnosis = Diagnosis(look_at_environment())
        if command:
            words = await words_of(chosen(command, place), options)
            diagnosis = await diagnose(words, options.load(), env=options.env)
        if as_json:
            print_json(diagnosis)
        else:
            _show_diagnosis(diagnosis, has_plugin=bool(command))
        return 0 if diagnosis.finding is None else FAILED

    run(body, trio=trio, as_json=as_json)


def _show_diagnosis(diagnosis: Any, *, has_plugin: bool) -> None:
    table = Table.grid(padding=(0, 2))
    for fact in diagnosis.facts:
        mark = "[green]ok[/green]" if fact.ok else "[yellow]!![/yellow]"
        table.add_row(mark, fact.what, escape(fact.note))
    console.print(table)
    finding = diagnosis.finding
    if finding is None:
        if has_plugin:
            console.print("\n[green]Nothing is wrong with this plugin.[/green]")
        return
    console.print(f"\n[red]{finding.cause}[/red]: {escape(finding.summary)}")
    for line in finding.evidence:
        console.print(f"  | {escape(line)}", style="dim")
    console.print(f"What to do: {escape(finding.advice)}")


@app.command("top")
def top_command(
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="[PID|PATH]",
            help="The host's process, or the path of its socket; by default the only one.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.01, help="How often to look.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, and end.")] = False,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Show what the plugins of a running host do, which has to offer that."""
    from ._top import Screen, socket_of, watch  # noqa: PLC0415 - not for the others

    async def body() -> int:
        path = socket_of(host)
        if as_json:
            await watch(path, interval, once, print_json)
            return 0
        with Screen(console, once=once) as screen:
            await watch(path, interval, once, screen.show)
        return 0

    run(body, trio=trio, as_json=as_json)


@app.command("bench", context_settings=OF_A_PLUGIN)
def bench_command(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND... [-- METHOD [JSON]]",
            help="The plugin's program and its arguments; the method, as service/method, and its "
            "message. By default the plugin is asked whether it serves.",
            show_default=False,
        ),
    ],
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    no_mtls: NoMTLS = False,
    timeout: Timeout = None,
    callers: Annotated[
        str, typer.Option("--callers", metavar="1,64", help="How many call at a time.")
    ] = "1,8,64",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, help="How long each of these rounds takes.")
    ] = 2.0,
    starts: Annotated[
        int, typer.Option("--starts", min=1, help="How often it is started, to time that.")
    ] = 3,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", metavar="SECONDS", help="Time for a call."),
    ] = None,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Measure how fast a plugin starts, and answers calls of a method."""
    from ._bench import bench_plugin, show_bench  # noqa: PLC0415 - not for the others

    program, called = _split(command)
    if not program or len(called) > 2:
        msg = "a plugin's command is needed, and after -- a method and one message at most"
        raise typer.BadParameter(msg)
    options = host_options(cookie, versions, env, setting, no_mtls, timeout)
    counts = [int(one) for one in callers.split(",") if one.strip().isdecimal()]
    if not counts or min(counts) < 1 or len(counts) != len(callers.split(",")):
        msg = f"{callers!r} are no numbers of callers"
        raise typer.BadParameter(msg, param_hint="--callers")

    async def body() -> int:
        seen = await bench_plugin(
            chosen(program, place),
            options,
            method=called[0] if called else None,
            message=called[1] if len(called) > 1 else "{}",
            callers=counts,
            seconds=seconds,
            starts=starts,
            deadline=deadline,
        )
        print_json(seen) if as_json else show_bench(seen, console)
        return FAILED if any(one["errors"] for one in seen["rounds"]) else 0

    run(body, trio=trio, as_json=as_json)


@app.command("check", context_settings=OF_A_PLUGIN)
def check_command(
    command: Command,
    place: From = None,
    cookie: Cookie = None,
    versions: Versions = None,
    env: Variables = None,
    setting: Assignments = None,
    timeout: Timeout = None,
    as_json: AsJSON = False,
    trio: Trio = False,
) -> None:
    """Check whether a program, in whatever language, is a correct plugin."""
    options = host_options(cookie, versions, env, setting, False, timeout)

    async def body() -> int:
        words = await words_of(chosen(command, place), options)
        report = await check_plugin(words, env=options.env, **options.settings)
        if as_json:
            print_json(report.to_dict())
        else:
            colours = {"ok  ": "green", "FAIL": "red", "note": "yellow"}
            for line in str(report).splitlines():
                console.print(escape(line), style=colours.get(line[:4], ""))
        return 0 if report.passed else FAILED

    run(body, trio=trio, as_json=as_json)


@app.command("list")
def list_command(places: Places = None, as_json: AsJSON = False) -> None:
    """List the plugins that are installed; status 1 if something is wrong with one."""
    with told_errors(as_json=as_json):
        found = find(places or [])
    if as_json:
        print_json(listed(found))
    else:
        show_installed(found)
    raise typer.Exit(FAILED if found.errors else 0)


@certs.command("make")
def certs_make(
    folder: Annotated[Path, typer.Argument(help="Where the files go.")],
    name: Annotated[str, typer.Option(help="What the certificate's files are called.")] = "plugin",
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A name or address that it is for; localhost by default."),
    ] = None,
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 365,
    as_json: AsJSON = False,
) -> None:
    """Make a certificate, and an authority for it (ca.crt, ca.key) where there is none yet."""
    from pyvider_rpcplugin.testing import CertificateAuthority  # noqa: PLC0415 - loads x509

    ca, key = folder / "ca.crt", folder / "ca.key"
    lifetime = timedelta(days=days)
    with told_errors(as_json=as_json):
        written: list[str] = []
        if ca.exists() and key.exists():
            authority = CertificateAuthority(
                pem=ca.read_text(encoding="ascii"), key_pem=key.read_text(encoding="ascii")
            )
        else:
            authority = CertificateAuthority("a private authority", valid_for=lifetime)
            written += authority.write(folder, "ca")
        issued = authority.issue(*(host or ()), valid_for=lifetime)
        written += issued.write(folder, name)
    _show_written(written, as_json=as_json)


@certs.command("show")
def certs_show(
    file: Annotated[Path, typer.Argument(help="A file with one certificate or more, as PEM.")],
    as_json: AsJSON = False,
) -> None:
    """Show the certificates in a file."""
    with told_errors(as_json=as_json):
        found = _certificates(file)
    if as_json:
        print_json(found)
        return
    for one in found:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan")
        for name, value in {**one, "names": ", ".join(one["names"])}.items():
            table.add_row(name.replace("_", " "), escape(str(value)))
        console.print(table)


@certs.command("check")
def certs_check(
    files: Annotated[list[Path], typer.Argument(help="Files with certificates, as PEM.")],
    days: Annotated[
        int, typer.Option(help="How many days more they have to be valid.")
    ] = _EXPIRES_SOON,
    as_json: AsJSON = False,
) -> None:
    """Check that certificates do not expire soon; status 1 if one does."""
    rows: list[dict[str, Any]] = []
    with told_errors(as_json=as_json):
        for file in files:
            for one in _certificates(file):
                left = one["days_left"]
                good = left >= days
                rows.append(
                    {"file": str(file), "subject": one["subject"], "days_left": left, "ok": good}
                )
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            said = f"{row['days_left']:.0f} days left" if row["days_left"] > 0 else "has expired"
            mark = "[green]ok[/green]  " if row["ok"] else "[red]FAIL[/red]"
            console.print(f"{mark}  {escape(row['file'])}: {escape(row['subject'])}: {said}")
    raise typer.Exit(0 if all(row["ok"] for row in rows) else FAILED)


def _certificates(file: Path) -> list[dict[str, Any]]:
    from pyvider_rpcplugin.crypto import Certificate  # noqa: PLC0415 - loads x509

    from ._inspect import describe_certificate  # noqa: PLC0415 - likewise

    return [describe_certificate(one.pem) for one in Certificate.load_chain(file)]


@app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(help="What it is called, as a Python module is.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where; by default a folder of that name.")
    ] = None,
    form: Annotated[Form, typer.Option("--form", help="How its service is written.")] = "typed",
    as_json: AsJSON = False,
) -> None:
    """Begin a plugin: its service, its program, a host for it, and tests."""
    from ._new import make_project  # noqa: PLC0415 - not for the others

    with told_errors(as_json=as_json):
        made = folder or Path(name)
        written = [str(path) for path in make_project(made, name, form)]
    _show_written(written, as_json=as_json)
    if not as_json:
        console.print(
            f"\nIn the folder {escape(str(made))}: `python {name}_host.py` runs it, and "
            "`python -m pytest` its tests."
        )


def _show_written(written: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(written)
        return
    for path in written:
        console.print(escape(path))


@gen.command("stubs")
def gen_stubs(
    folder: Annotated[Path, typer.Argument(help="Where the .proto files are.")],
    out: Annotated[Path | None, typer.Option(help="Where the modules go.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="grpclib (the default), grpcio or betterproto2; may be repeated."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="What imports are relative to.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Generate Python modules from .proto files."""
    from pyvider_rpcplugin.codegen import generate  # noqa: PLC0415 - not for the others

    kinds: Any = kind or ["grpclib"]
    with told_errors(as_json=as_json):
        written = [str(path) for path in generate(folder, out, kinds=kinds, root=root)]
    _show_written(written, as_json=as_json)


@gen.command("proto")
def gen_proto(
    interface: Annotated[str, typer.Argument(help="A typed class, as module:Class.")],
    service: Annotated[str | None, typer.Option(help="The service's name, with package.")] = None,
    go_package: Annotated[str | None, typer.Option(help="Where Go imports it from.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Write the .proto file of a typed class."""
    from pyvider_rpcplugin.protocol.typed import proto_of  # noqa: PLC0415 - not for the others

    module, _, name = interface.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        kind = operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError, ValueError) as exc:
        errors.print(f"[red]error:[/red] there is no {escape(interface)}: {escape(str(exc))}")
        raise typer.Exit(WRONG_USAGE) from None
    with told_errors(as_json=False):
        text = proto_of(kind, service, go_package=go_package)
        if out is not None:
            out.write_text(text, encoding="utf-8")
            return
    typer.echo(text, nl=False)
