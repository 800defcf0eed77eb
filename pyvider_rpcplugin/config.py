"""Every setting of hosts and plugins: its name, its default, what it accepts, and its value now.

A setting comes from four places, of which the later wins: its default, the environment,
:func:`configure`, and what one client or server was given (``config=``, then keyword arguments).
:func:`load_settings` reads them all, at the time of the call, into one :class:`Settings`, which
never changes afterwards.

The fields of :class:`Settings` are the only list of settings. Error messages, the names that
:func:`setting_names` gives and the table in the documentation are all made from it.
"""

# Without `from __future__ import annotations`: the fields' annotations are read, and evaluating
# them from strings takes a good part of a plugin's start.

import functools
import logging
import os
import socket
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from pyvider_rpcplugin import _config_kinds as kinds
from pyvider_rpcplugin.exception import ConfigError

__all__ = [
    "PREFIX",
    "TRACE",
    "Settings",
    "application_keys",
    "configure",
    "level_number",
    "load_settings",
    "setting_names",
    "settings_table",
    "started_by_host",
]

PREFIX = "PLUGIN_"
"""What the names of all settings begin with."""

TRACE = 5
"""The level below `logging.DEBUG` that logs in Go have, and Python has no name for."""

logger: logging.Logger = logging.getLogger(__name__)

_Side = Literal["host", "plugin"]
_BOTH: tuple[_Side, ...] = ("host", "plugin")
_HOST: tuple[_Side, ...] = ("host",)
_PLUGIN: tuple[_Side, ...] = ("plugin",)


class _Setting(msgspec.Struct, frozen=True):
    """What is known of one setting beside its name and its default."""

    kind: kinds.Kind
    sides: tuple[_Side, ...]
    meaning: str
    # Never shown, in whatever form it was given.
    secret: bool = False
    aliases: tuple[str, ...] = ()
    # For the documentation, where the plain default would not tell the whole of it.
    default_text: str = ""


_TRANSPORTS = ("unix", "tcp")
_PORT = kinds.WholeNumber(0, 65535)
_SWITCH = kinds.Boolean()
_PATH = kinds.FilePath()
_PEM = kinds.Pem()
_SECONDS = kinds.Number(0, above=True, unit="seconds")
_MILLISECONDS = kinds.WholeNumber(0, 2**31 - 1)
_MESSAGE_SIZE = kinds.WholeNumber(1, 2**31 - 1, special=-1, special_meaning="no limit")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one client or server: an immutable value, made by :func:`load_settings`.

    The last three fields are no settings. They are what a host told its plugin in the
    environment, and are filled in for a plugin only.
    """

    core_version: Annotated[
        int, _Setting(kinds.WholeNumber(1, 1), _BOTH, "First field of the handshake line.")
    ] = 1
    protocol_versions: Annotated[
        tuple[int, ...],
        _Setting(
            kinds.NumberList(kinds.WholeNumber(0, 2**31 - 1)),
            _BOTH,
            "Versions of the application's protocol: what a host offers, what a plugin serves. "
            "A plugin does not read its own from the environment: there the variable carries "
            "what the host offers.",
        ),
    ] = (1,)
    magic_cookie_key: Annotated[
        str,
        _Setting(kinds.Text(name=True), _BOTH, "Name of the variable that carries the cookie."),
    ] = "PLUGIN_MAGIC_COOKIE"
    magic_cookie_value: Annotated[
        str,
        _Setting(
            kinds.Text(),
            _BOTH,
            "The cookie: a host puts it into the plugin's environment, a plugin that does not "
            "find it there refuses to serve. It tells a host's start from one by hand; it is no "
            "protection.",
            secret=True,
        ),
    ] = "rpcplugin-default-cookie"
    log_level: Annotated[
        str,
        _Setting(
            kinds.Word(
                ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
                also=(("WARN", "WARNING"),),
            ),
            _BOTH,
            "Level of the logger `pyvider_rpcplugin`, in a plugin also of its log lines. TRACE is "
            "5, below what Python has a name for.",
        ),
    ] = "INFO"
    log_line_limit: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1024, 1 << 24),
            _HOST,
            "Bytes that a line of a plugin's standard error may have; a longer one is logged in "
            "pieces.",
        ),
    ] = 65536
    handshake_timeout: Annotated[
        float, _Setting(_SECONDS, _HOST, "Seconds from the plugin's start to its handshake line.")
    ] = 10.0
    connection_timeout: Annotated[
        float,
        _Setting(_SECONDS, _HOST, "Seconds to connect, for TLS and for HTTP/2's first exchange."),
    ] = 30.0
    server_transports: Annotated[
        tuple[str, ...],
        _Setting(
            kinds.WordList(_TRANSPORTS),
            _PLUGIN,
            "Transports to serve on, the best first, when the program names none.",
            default_text="unix,tcp (tcp where the system has no Unix sockets)",
        ),
    ] = _TRANSPORTS if hasattr(socket, "AF_UNIX") else ("tcp",)
    client_transports: Annotated[
        tuple[str, ...],
        _Setting(kinds.WordList(_TRANSPORTS), _HOST, "Transports that a plugin may answer with."),
    ] = _TRANSPORTS
    server_host: Annotated[
        str, _Setting(kinds.Text(), _PLUGIN, "Address that a tcp plugin binds; IPv6 too.")
    ] = "127.0.0.1"
    server_port: Annotated[
        int, _Setting(_PORT, _PLUGIN, "Port that a tcp plugin binds; 0 lets the system choose.")
    ] = 0
    server_unix_socket_path: Annotated[
        str,
        _Setting(_PATH, _PLUGIN, "A fixed path for the socket; empty: one in a private folder."),
    ] = ""
    min_port: Annotated[
        int,
        _Setting(
            _PORT,
            _BOTH,
            "Lowest tcp port that the plugin may bind; a host sends it to its plugin.",
            default_text="0 (both 0: a host sends 10000 and 25000)",
        ),
    ] = 0
    max_port: Annotated[int, _Setting(_PORT, _BOTH, "Highest tcp port, likewise.")] = 0
    unix_socket_dir: Annotated[
        str,
        _Setting(_PATH, _BOTH, "Folder for the plugin's sockets; a host sends it to its plugin."),
    ] = ""
    unix_socket_group: Annotated[
        str,
        _Setting(
            kinds.Text(empty=True), _BOTH, "Group (name or number) that may use the sockets too."
        ),
    ] = ""
    multiplex_grpc: Annotated[
        bool,
        _Setting(
            _SWITCH,
            _HOST,
            "All connections share the one socket. In a plugin's environment the variable "
            "carries what its host asks for.",
        ),
    ] = False
    auto_mtls: Annotated[
        bool | Literal["required"],
        _Setting(
            kinds.BooleanOrRequired(),
            _BOTH,
            "Mutual TLS with certificates made for one run. A host refuses a plugin without it; "
            "a plugin uses it when the host does, and with `required` refuses a host that does "
            "not. Certificates of one's own, or `tls=`, stand in its place.",
        ),
    ] = True
    cert_curve: Annotated[
        str,
        _Setting(
            kinds.Word(("secp256r1", "secp384r1", "secp521r1")),
            _BOTH,
            "Elliptic curve of the certificates that are made.",
        ),
    ] = "secp256r1"
    cert_validity_days: Annotated[
        int, _Setting(kinds.WholeNumber(1, 36500), _BOTH, "Days that those are valid.")
    ] = 10950
    server_cert: Annotated[str, _Setting(_PEM, _PLUGIN, "The plugin's own certificate.")] = ""
    server_key: Annotated[
        str, _Setting(_PEM, _PLUGIN, "The private key of that certificate.", secret=True)
    ] = ""
    client_cert: Annotated[
        str,
        _Setting(
            _PEM,
            _HOST,
            "The host's own certificate. In a plugin's environment, without PLUGIN_CLIENT_KEY, "
            "the variable carries the certificate that the host made for this run.",
        ),
    ] = ""
    client_key: Annotated[
        str,
        _Setting(
            _PEM,
            _HOST,
            "The private key of the host's certificate; never handed to a plugin.",
            secret=True,
        ),
    ] = ""
    client_root_certs: Annotated[
        str,
        _Setting(
            _PEM, _PLUGIN, "Whose hosts a plugin trusts.", default_text="that of PLUGIN_CA_CERT"
        ),
    ] = ""
    server_root_certs: Annotated[
        str,
        _Setting(
            _PEM, _HOST, "Whose plugins a host trusts.", default_text="that of PLUGIN_CA_CERT"
        ),
    ] = ""
    ca_cert: Annotated[str, _Setting(_PEM, _BOTH, "Stands in for the two before.")] = ""
    grpc_keepalive_time_ms: Annotated[
        int,
        _Setting(
            _MILLISECONDS,
            _BOTH,
            "Milliseconds between HTTP/2 pings; 0: none. Servers made with grpc-go close a "
            "connection that pings more often than every five minutes.",
        ),
    ] = 0
    grpc_keepalive_timeout_ms: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1, 2**31 - 1),
            _BOTH,
            "Milliseconds that the answer to a ping may take before the connection counts as lost.",
        ),
    ] = 20000
    grpc_grace_period: Annotated[
        float,
        _Setting(
            kinds.Number(0, unit="seconds"),
            _BOTH,
            "Seconds that running calls may go on when a server or client stops.",
            aliases=("timeout_graceful_shutdown",),
        ),
    ] = 1.0
    grpc_max_receive_message_size: Annotated[
        int,
        _Setting(_MESSAGE_SIZE, _BOTH, "Largest message taken, in bytes; -1: any size."),
    ] = 268435456
    grpc_max_send_message_size: Annotated[
        int, _Setting(_MESSAGE_SIZE, _BOTH, "Largest message sent, in bytes; -1: any size.")
    ] = -1
    max_workers: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1, 100_000),
            _PLUGIN,
            "Threads for handlers that are not async; a later version takes such handlers.",
        ),
    ] = 40
    max_concurrent_streams: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1, 2**31 - 1),
            _BOTH,
            "Calls that the peer may have running at a time on one connection.",
        ),
    ] = 1000
    max_concurrent_calls: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1, 2**31 - 1),
            _BOTH,
            "Calls that run at a time on all connections of a server together; more are refused "
            "with UNAVAILABLE at once.",
        ),
    ] = 4000
    max_connections: Annotated[
        int,
        _Setting(
            kinds.WholeNumber(1, 1_000_000),
            _BOTH,
            "Connections that a server has at a time. One more takes the place of one whose client "
            "has not spoken yet, or is turned away.",
        ),
    ] = 256
    client_retry_enabled: Annotated[
        bool,
        _Setting(_SWITCH, _HOST, "Start a plugin again after a failure that may have passed."),
    ] = True
    client_max_retries: Annotated[
        int, _Setting(kinds.WholeNumber(0, 1_000_000), _HOST, "How many times.")
    ] = 3
    client_initial_backoff_ms: Annotated[
        int,
        _Setting(
            _MILLISECONDS, _HOST, "Milliseconds before the first of them; doubled for each next."
        ),
    ] = 100
    client_max_backoff_ms: Annotated[
        int, _Setting(_MILLISECONDS, _HOST, "The most that this grows to.")
    ] = 5000
    client_retry_jitter_ms: Annotated[
        int, _Setting(_MILLISECONDS, _HOST, "Up to so many milliseconds are added, at random.")
    ] = 50
    client_retry_total_timeout_s: Annotated[
        float, _Setting(_SECONDS, _HOST, "Seconds for all attempts together.")
    ] = 30.0
    shutdown_file_path: Annotated[
        str,
        _Setting(_PATH, _PLUGIN, "The plugin stops when this file appears, and removes it."),
    ] = ""
    ignore_sigint: Annotated[
        bool, _Setting(_SWITCH, _PLUGIN, "Leave Ctrl-C to the host that started the plugin.")
    ] = True
    outlive_host: Annotated[
        bool,
        _Setting(
            _SWITCH,
            _BOTH,
            "The plugin goes on when its host ends, for another host to attach to; a host sends "
            "it to its plugin.",
        ),
    ] = False
    wait_for_debugger: Annotated[
        bool,
        _Setting(
            _SWITCH,
            _BOTH,
            "The plugin waits for a debugger before it serves; a host sends it to its plugin, and "
            "waits as long as that takes.",
        ),
    ] = False
    rate_limit_enabled: Annotated[
        bool, _Setting(_SWITCH, _PLUGIN, "Bound how often the application's methods are called.")
    ] = False
    rate_limit_requests_per_second: Annotated[
        float, _Setting(kinds.Number(0, above=True), _PLUGIN, "Calls a second in the long run.")
    ] = 100.0
    rate_limit_burst_capacity: Annotated[
        float, _Setting(kinds.Number(1), _PLUGIN, "Calls that may come at once.")
    ] = 200.0
    health_service_enabled: Annotated[
        bool, _Setting(_SWITCH, _PLUGIN, "Serve gRPC's standard health service.")
    ] = True
    reflection_enabled: Annotated[
        bool,
        _Setting(
            _SWITCH,
            _PLUGIN,
            "Serve gRPC's standard reflection, by which tools find out what there is.",
        ),
    ] = True

    offered_versions: str | None = None
    host_certificate: str | None = None
    multiplex_requested: bool = False
    multiplex_wanted: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What differs from the defaults; never a secret."""
        table = _table()
        shown: list[tuple[str, Any]] = []
        for name, default in _defaults().items():
            value = getattr(self, name)
            if value == default:
                continue
            setting = table.get(name)
            if setting is not None and setting.secret:
                shown.append((name, "(secret)"))
            else:
                # A certificate is no secret, but too long to be of use here.
                shown.append((name, "(PEM)" if "-----BEGIN" in str(value) else value))
        return shown

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{n}={v!r}' for n, v in self.__rich_repr__())})"


# What hosts in Go take for true in a variable.
_TRUE_IN_GO = frozenset({"1", "t", "T", "TRUE", "true", "True"})

# Names of version 0.5.5 that have no setting here, and what to do instead.
_GONE: Mapping[str, str] = {
    "insecure": "PLUGIN_AUTO_MTLS=false says it.",
    "exit_on_stop": "serve() returns when the server has stopped; the program decides what then.",
    "channel_ready_timeout": "PLUGIN_CONNECTION_TIMEOUT bounds connecting.",
    "server_ready_timeout": "A server is ready when it has printed its line; "
    "PLUGIN_HANDSHAKE_TIMEOUT bounds that.",
    "buffer_size": "Buffers follow HTTP/2's flow control; leave it out.",
    "transport_buffer_size": "Buffers follow HTTP/2's flow control; leave it out.",
    "chunk_size": "Buffers follow HTTP/2's flow control; leave it out.",
    "mtls_cert_dir": "Certificates made for one run are never written to a folder; give your own "
    "by PLUGIN_SERVER_CERT, PLUGIN_SERVER_KEY, PLUGIN_CLIENT_CERT and PLUGIN_CLIENT_KEY.",
    "client_cert_file": "PLUGIN_CLIENT_CERT takes a path too.",
    "client_key_file": "PLUGIN_CLIENT_KEY takes a path too.",
    "client_retry_delay": "PLUGIN_CLIENT_INITIAL_BACKOFF_MS says it, in milliseconds.",
    "client_backoff_multiplier": "Each wait is twice the one before; "
    "PLUGIN_CLIENT_INITIAL_BACKOFF_MS and PLUGIN_CLIENT_MAX_BACKOFF_MS bound them.",
    "client_max_retry_delay": "PLUGIN_CLIENT_MAX_BACKOFF_MS says it, in milliseconds.",
    "ui_enabled": "There is no such output here; leave it out.",
    "show_emoji_matrix": "There is no such output here; leave it out.",
}

# Not settings, but what one may take for one.
_MISTAKEN: Mapping[str, str] = {
    "magic_cookie": "PLUGIN_MAGIC_COOKIE_VALUE is the cookie, PLUGIN_MAGIC_COOKIE_KEY the name of "
    "the variable that carries it.",
}

# Variables by which a host talks to its plugin. In a plugin's environment they are the host's
# words to that plugin, so a client inside the plugin must not take them for its own settings.
_WIRE = (
    "protocol_versions",
    "min_port",
    "max_port",
    "unix_socket_dir",
    "unix_socket_group",
    "multiplex_grpc",
    "outlive_host",
    "wait_for_debugger",
)
# Of these, what a plugin reads from the variable is not the setting but the host's wish, which
# may be in words that the setting would refuse.
_WIRE_ONLY_FOR_PLUGIN = frozenset({"protocol_versions", "multiplex_grpc"})

# What configure() was given: setting -> value. Replaced as a whole, never changed in place.
_configured: Mapping[str, object] = {}


@functools.cache
def _table() -> dict[str, _Setting]:
    """The settings by name, in the order in which they are declared."""
    return {
        name: hint.__metadata__[0]
        for name, hint in Settings.__annotations__.items()
        if hasattr(hint, "__metadata__")
    }


@functools.cache
def _defaults() -> dict[str, Any]:
    return dict(zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True))


@functools.cache
def _spellings() -> dict[str, str]:
    """Every lower-case name that means a setting, and which."""
    spellings = {name: name for name in _table()}
    for name, setting in _table().items():
        spellings.update(dict.fromkeys(setting.aliases, name))
    return spellings


def setting_names() -> frozenset[str]:
    """The names of all settings as the factories take them: lower case, without prefix."""
    return frozenset(_spellings())


def configure(**settings: object) -> None:
    """Set settings for every client and server that this process makes from now on.

    Both spellings are known: ``configure(PLUGIN_AUTO_MTLS=False)`` and
    ``configure(auto_mtls=False)``. They win over the environment, and what one client or server
    is given wins over them. Calls add up; ``None`` takes a setting back.

    Raises:
        ConfigError: For an unknown name or a value that is not accepted. Nothing is set then.
    """
    global _configured  # noqa: PLW0603 - process-wide settings are what this function is for
    given = _read_named(settings, "configure()", keep_application_keys=False)
    merged = dict(_configured)
    for name, (label, raw) in given.items():
        if raw is None:
            merged.pop(name, None)
        else:
            merged[name] = _parse(name, label, raw, "configure()")
    _configured = merged


def application_keys(config: Mapping[str, object] | None) -> dict[str, object]:
    """The entries of a ``config=`` that are the application's own: those without the prefix.

    Among them is ``env``, by which a host gives its plugin more variables.
    """
    return {key: value for key, value in (config or {}).items() if not key.startswith(PREFIX)}


def started_by_host(environ: Mapping[str, str]) -> bool:
    """Whether this is the environment of a plugin that a host started.

    A host always sends the versions that it offers, and with them the range of ports or a
    certificate without a key: nobody sets these together by hand for a host of his own.
    """
    if f"{PREFIX}PROTOCOL_VERSIONS" not in environ:
        return False
    ports = f"{PREFIX}MIN_PORT" in environ and f"{PREFIX}MAX_PORT" in environ
    return ports or _carries_host_certificate(environ)


def load_settings(
    config: Mapping[str, object] | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, object] | None = None,
    side: Literal["host", "plugin"],
) -> Settings:
    """Gather the settings of one client (``side="host"``) or server (``side="plugin"``).

    Args:
        config: What the object was given as ``config=``. Keys without the prefix are left alone.
        overrides: Keyword arguments of the factories: lower case, without prefix.
        environ: The environment; that of the process at this moment if left out. Only the
            settings of this side are read from it, and an empty variable counts as not set.
        defaults: Values in place of those of the fields, by their names; of the fields' types.
        side: For whom.

    Raises:
        ConfigError: For an unknown name, a value that is not accepted, values that contradict
            each other, or a feature that this version does not have.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {**_defaults(), **(defaults or {})}
    sources: dict[str, str] = {}

    def take(given: Mapping[str, tuple[str, object]], source: str) -> None:
        for name, (label, raw) in given.items():
            values[name] = _parse(name, label, raw, source)
            sources[name] = source

    from_environment = "the environment"
    take(_read_environment(environ, side), from_environment)
    for name, value in _configured.items():
        values[name] = value
        sources[name] = "configure()"
    take(_read_named(config, "config=", keep_application_keys=True), "config=")
    take(_read_named(overrides, "a keyword", keep_application_keys=False), "a keyword")

    if side == "plugin":
        values["offered_versions"] = environ.get(f"{PREFIX}PROTOCOL_VERSIONS")
        asked = environ.get(f"{PREFIX}MULTIPLEX_GRPC", "")
        values["multiplex_requested"] = bool(asked)
        values["multiplex_wanted"] = asked in _TRUE_IN_GO
        if _carries_host_certificate(environ):
            values["host_certificate"] = environ[f"{PREFIX}CLIENT_CERT"]
    _check_port_range(values, sources)
    return Settings(**values)


def level_number(level: str) -> int:
    """The number that `logging` knows a `log_level` by."""
    return TRACE if level == "TRACE" else logging.getLevelNamesMapping()[level]


def settings_table() -> str:
    """The settings as a Markdown table: the one in the documentation."""
    lines = [
        "| setting | default | accepts | side | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, setting in _table().items():
        default = setting.default_text or setting.kind.text(_defaults()[name])
        meaning = setting.meaning
        for alias in setting.aliases:
            meaning += f" {PREFIX}{alias.upper()} is another name for it."
        side = " ".join(side[0].upper() for side in setting.sides)
        cells = (PREFIX + name.upper(), default, setting.kind.accepts, side, meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _carries_host_certificate(environ: Mapping[str, str]) -> bool:
    return bool(environ.get(f"{PREFIX}CLIENT_CERT")) and not environ.get(f"{PREFIX}CLIENT_KEY")


def _read_environment(environ: Mapping[str, str], side: _Side) -> dict[str, tuple[str, object]]:
    """What the environment says of this side's settings: name -> (variable, text)."""
    not_mine: frozenset[str]
    if side == "plugin":
        not_mine = _WIRE_ONLY_FOR_PLUGIN
    elif started_by_host(environ):
        not_mine = frozenset(_WIRE)
        if _carries_host_certificate(environ):
            not_mine |= {"client_cert"}
    else:
        not_mine = frozenset()
    given: dict[str, tuple[str, object]] = {}
    for spelling, name in _spellings().items():
        variable = PREFIX + spelling.upper()
        text = environ.get(variable)
        if text and side in _table()[name].sides and name not in not_mine:
            _add(given, name, variable, text, "the environment")
    for spelling, instead in _GONE.items():
        # Others use the prefix too, so one of these need not be meant for us: no error.
        if PREFIX + spelling.upper() in environ:
            logger.warning(
                "%s in the environment has no effect: %s", PREFIX + spelling.upper(), instead
            )
    return given


def _read_named(
    given: object, source: str, *, keep_application_keys: bool
) -> dict[str, tuple[str, object]]:
    """The settings among what a program gave: name -> (as it was spelled, value)."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        message = f"{source} is {type(given).__name__}: accepted is a mapping of names to values"
        raise ConfigError(message, phase="settings")
    found: dict[str, tuple[str, object]] = {}
    for key, value in typing.cast("Mapping[object, object]", given).items():
        if not isinstance(key, str):
            message = f"{kinds.show(key)} in {source} is not the name of a setting"
            raise ConfigError(message, phase="settings")
        prefixed = key.startswith(PREFIX)
        if not prefixed and keep_application_keys:
            continue
        spelling = key.removeprefix(PREFIX).lower() if prefixed else key
        # A prefixed name is upper case throughout, as a variable is.
        exact = not prefixed or key == key.upper()
        name = _spellings().get(spelling) if exact else None
        if name is None:
            raise _unknown(key, spelling, source, prefixed=prefixed)
        _add(found, name, key, value, source)
    return found


def _add(
    found: dict[str, tuple[str, object]], name: str, label: str, value: object, source: str
) -> None:
    """Note a setting's value, which may be given only once by one source."""
    earlier = found.get(name)
    if earlier is not None and earlier[1] != value:
        message = f"{earlier[0]} and {label} are the same setting and differ in {source}"
        raise ConfigError(message, "Give one of them.", phase="settings")
    found[name] = (label, value)


def _parse(name: str, label: str, raw: object, source: str) -> object:
    setting = _table()[name]
    try:
        return setting.kind.parse(raw)
    except kinds.NotAccepted:
        pass
    # Raised out here, so that no chained error repeats a secret.
    given = "a value that is not shown" if setting.secret else kinds.show(raw)
    default = setting.default_text or setting.kind.text(_defaults()[name])
    message = f"{label} from {source} is {given}: accepted is {setting.kind.accepts}"
    hint = "Leave it out for the default." if setting.secret else f"The default is {default}."
    raise ConfigError(message, hint, phase="settings")


def _unknown(key: str, spelling: str, source: str, *, prefixed: bool) -> ConfigError:
    hint = _GONE.get(spelling.lower()) or _MISTAKEN.get(spelling.lower())
    if hint is None:
        # Loaded only to explain an error.
        import difflib  # noqa: PLC0415

        near = difflib.get_close_matches(spelling.lower(), _spellings(), n=1, cutoff=0.5)
        if near:
            hint = f"The nearest known name is {PREFIX + near[0].upper() if prefixed else near[0]}."
        elif prefixed:
            hint = f"Keys of your own do not begin with {PREFIX}."
    return ConfigError(f"{kinds.show(key)} from {source} is not a setting", hint, phase="settings")


def _check_port_range(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    low, high = values["min_port"], values["max_port"]
    if low <= high:
        return
    source = sources.get("min_port") or sources.get("max_port")
    message = (
        f"PLUGIN_MIN_PORT = {low} from {source} is above PLUGIN_MAX_PORT = {high}: accepted is a "
        "range that is not empty"
    )
    raise ConfigError(message, "Set both, the lower one first.", phase="settings")
