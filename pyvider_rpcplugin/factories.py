"""The functions that programs begin with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.services import check_keywords

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from pyvider_rpcplugin.client import RPCPluginClient
    from pyvider_rpcplugin.client._events import OnEvent
    from pyvider_rpcplugin.client._sinks import OutputSink
    from pyvider_rpcplugin.client.supervision import PoolPolicy, RestartPolicy
    from pyvider_rpcplugin.discovery import PluginProgram
    from pyvider_rpcplugin.exception import PluginExit
    from pyvider_rpcplugin.handshake import ReattachConfig
    from pyvider_rpcplugin.process import ResourceLimits, RunnerFactory, SecureConfig
    from pyvider_rpcplugin.protocol.base import RPCPluginProtocol
    from pyvider_rpcplugin.rpc import Interceptor
    from pyvider_rpcplugin.server import PluginMux, RPCPluginServer
    from pyvider_rpcplugin.transport import RPCPluginTransport

__all__ = ["plugin_client", "plugin_mux", "plugin_pool", "plugin_protocol", "plugin_server"]

_SERVER_OPTIONS = ("versions", "tls", "standalone", "interceptors", "on_shutdown")


def plugin_server(
    protocol: RPCPluginProtocol | Mapping[int, Any] | None = None,
    handler: Any = None,
    transport: Literal["unix", "tcp"] | RPCPluginTransport | None = None,
    host: str | None = None,
    port: int = 0,
    transport_path: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    versions: Mapping[int, Any] | None = None,
    tls: ssl.SSLContext | None = None,
    standalone: bool = False,
    interceptors: Iterable[Any] = (),
    on_shutdown: Callable[[], object] | Iterable[Callable[[], object]] | None = None,
    **settings: Any,
) -> RPCPluginServer:
    """Make a plugin's server.

    Args:
        protocol: What registers the handler. A handler that says itself what it serves needs none:
            one derived from a class that grpclib generated, or one whose class has public async
            methods. A mapping is the same as `versions`.
        handler: The object whose methods are called.
        transport: "unix" or "tcp"; by default unix where there is such a thing.
        host: The address to bind with tcp, 127.0.0.1 by default.
        port: The port to bind with tcp; 0 lets the system choose one.
        transport_path: The path of the Unix socket; by default one in a private folder.
        config: Settings for this server (`PLUGIN_...`), and keys of the application's own.
        versions: For a plugin that serves several versions of its protocol: from each version to
            its handler, to its protocol, or to both as `(protocol, handler)`. A protocol alone
            goes with `handler`. Only the highest version that the host offers too is served.
        tls: A context of your own instead of what the settings say about certificates. It decides
            whom to let in.
        standalone: Serve without a host: no cookie is asked for, and no line is printed.
        interceptors: Async functions that are called with an `InterceptedCall` before each call of
            the handler; what one returns, if anything, is called with the call's status. Objects
            of the form of `grpc.aio.ServerInterceptor` are asked after all of those.
        on_shutdown: A function, or several, to call when the server begins to stop: calls that run
            are still going on. It is called in the loop's thread; what is async has the time that
            those calls have, PLUGIN_GRPC_GRACE_PERIOD, and is cancelled then. What it raises is
            logged. Where serving is cancelled instead, it is not called.
        settings: Any setting, in lower case and without its prefix.

    Returns:
        The server. It does nothing before `serve()` or `run()`, which also raise what is wrong
        with the settings.

    Raises:
        ConfigError: A keyword is neither an option nor a setting, or `on_shutdown` cannot be called.
        ProtocolError: The mapping of versions is none.
    """
    # Loaded here, so that a host does not load what only its plugins need.
    from pyvider_rpcplugin.server import RPCPluginServer  # noqa: PLC0415

    check_keywords(settings, _SERVER_OPTIONS, "plugin_server()")
    return RPCPluginServer(
        protocol,
        handler,
        config,
        transport,
        host=host,
        port=port,
        transport_path=transport_path,
        versions=versions,
        tls=tls,
        standalone=standalone,
        interceptors=interceptors,
        on_shutdown=on_shutdown,
        settings=settings,
    )


def plugin_mux(
    plugins: Mapping[str, RPCPluginServer | Callable[[], RPCPluginServer]],
) -> PluginMux:
    """Make one program of several plugins: its one argument names the one that it is.

    Args:
        plugins: Their servers by their names, or functions that make them, of which only the one
            that is asked for is called.

    Returns:
        What has a `run`, as a server has.

    Raises:
        ProtocolError: There are none, or a name cannot be an argument.
    """
    from pyvider_rpcplugin.server import PluginMux  # noqa: PLC0415 - as above

    return PluginMux(plugins)


def plugin_client(
    command: Sequence[str | os.PathLike[str]] | PluginProgram | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    inherit_env: bool | Collection[str] = True,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Literal["null", "inherit"] = "null",
    tls: ssl.SSLContext | None = None,
    secure: SecureConfig | None = None,
    limits: ResourceLimits | None = None,
    address: str | None = None,
    reattach: ReattachConfig | Mapping[str, Any] | str | None = None,
    runner: RunnerFactory | None = None,
    sync_stdout: OutputSink | None = None,
    sync_stderr: OutputSink | None = None,
    stderr: OutputSink | None = None,
    on_exit: Callable[[PluginExit], Awaitable[object] | object] | None = None,
    debug: Literal["wait"] | None = None,
    default_deadline: float | None = None,
    interceptors: Iterable[Interceptor] = (),
    restart: RestartPolicy | None = None,
    lazy: bool = False,
    idle_timeout: float | None = None,
    pool: PoolPolicy | None = None,
    on_event: OnEvent | None = None,
    services: Iterable[object] = (),
    **settings: Any,
) -> RPCPluginClient:
    """Make the client of a plugin, to be started by `async with` or by its `start()`.

    Args:
        command: The program and its arguments; no shell is used. Or what `discover` has found, or
            `python_plugin` has made.
        config: Settings for this client (`PLUGIN_...`), and keys of the application's own.
        env: Variables for the plugin, beside or instead of those that it inherits.
        inherit_env: Whether the plugin inherits this process's environment: True, False, or the
            names of the variables that it does.
        cwd: The folder to start the plugin in.
        stdin: "null", or "inherit" for a plugin that reads from the terminal.
        tls: A context of your own instead of what the settings say about certificates. It decides
            whom to trust; the name it looks for in the plugin's certificate is `localhost`.
        secure: The checksum that the plugin's program has to have; no other one is started.
        limits: What the plugin may use of memory, files, time and processes.
        address: Instead of a command: where a standalone server listens, as "host:port" or as
            the path of its socket.
        reattach: Instead of a command: the record of a plugin that runs already, as
            `client.reattach_config()` gives it, or its dictionary or JSON. Unless the record says
            that somebody else ends it (`test`), stopping the client ends the plugin.
        runner: What starts the plugin, if it is no process of this machine: called with a
            `RunSpec`, it gives an async context manager of a `Runner`. With `reattach`, it is
            called with the record, and gives that of an `AttachedRunner`.
        sync_stdout: Where what the plugin prints once it serves goes: a function that is called
            with bytes (async or not), a file for text or for bytes, or a stream of anyio's that
            sends bytes. It stays the caller's to close. By default, that is dropped.
        sync_stderr: The same for what it prints to `sys.stderr`. By default, that goes into the
            plugin's log.
        stderr: The same for what it writes to descriptor 2, from its start on and as it is: its
            log lines, and the last words of what crashes. All of that goes into the plugin's log,
            too.
        on_exit: Called with a `PluginExit` when a plugin that was up has ended, by itself or by
            `stop()`; async or not. It runs in the session of the client, which ends after it:
            within 5 seconds, or it is cancelled. What it raises is logged.
        debug: "wait": the plugin waits for a debugger before it serves, and says in its log how to
            attach one. The time for its start is not limited then.
        default_deadline: Seconds that a call may take which has no deadline of its own.
        interceptors: Async functions that are called with an `InterceptedCall` before each call of
            the application's; what one returns, if anything, is called with the call's status.
        restart: When the plugin is started again after its end; None: it is not.
        lazy: Start the plugin when it is called for the first time.
        idle_timeout: Seconds without a call after which it is stopped, until the next one.
        pool: How many plugins there are, if not one: see `plugin_pool`.
        on_event: Called with a `PluginEvent` whenever something happens to a plugin that is kept
            running; may be asynchronous.
        services: What the plugin may call of this host, by `context().host(...)` in its handlers:
            objects with public async methods, or whatever has `__mapping__()`.
        settings: Any setting, in lower case and without its prefix.

    Returns:
        The client, not started. What is wrong with the command or with the settings is raised by
        `start()`.

    Raises:
        ConfigError: A keyword is neither an option nor a setting.
    """
    from pyvider_rpcplugin.client import make_client  # noqa: PLC0415 - not for plugins

    return make_client(
        command,
        config,
        env=env,
        inherit_env=inherit_env,
        cwd=cwd,
        stdin=stdin,
        tls=tls,
        secure=secure,
        limits=limits,
        address=address,
        reattach=reattach,
        runner=runner,
        sync_stdout=sync_stdout,
        sync_stderr=sync_stderr,
        stderr=stderr,
        on_exit=on_exit,
        debug=debug,
        default_deadline=default_deadline,
        interceptors=interceptors,
        restart=restart,
        lazy=lazy,
        idle_timeout=idle_timeout,
        pool=pool,
        on_event=on_event,
        services=services,
        **settings,
    )


def plugin_pool(
    command: Sequence[str | os.PathLike[str]] | PluginProgram | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    **options: Any,
) -> RPCPluginClient:
    """Make the client of several plugins of one kind, each in a process of its own.

    It is used as any client is; each call goes to the plugin with the fewest open calls. One that
    ends is started again.

    Args:
        command: The program and its arguments; no shell is used. Or what `discover` has found, or
            `python_plugin` has made.
        config: Settings for the plugins, and keys of the application's own.
        size: How many plugins there are, by default one for each core; or the least and the most:
            more are started when all are busy, and stopped when they have had no call for a while.
        options: Whatever else `PoolPolicy` has, and whatever else `plugin_client` takes.

    Returns:
        The client, not started.

    Raises:
        ConfigError: An option makes no sense, or there is no such option.
    """
    from pyvider_rpcplugin._patience import cores  # noqa: PLC0415 - not for plugins
    from pyvider_rpcplugin.client import make_client  # noqa: PLC0415 - likewise
    from pyvider_rpcplugin.client.supervision import PoolPolicy  # noqa: PLC0415 - likewise

    policy = {name: options.pop(name) for name in PoolPolicy.__struct_fields__ if name in options}
    least, most = size if isinstance(size, tuple) else (size or cores(), None)
    pool = PoolPolicy(**{"size": least, "max_size": most, **policy})
    return make_client(command, config, pool=pool, **options)


def plugin_protocol(
    service_name: str | None = None,
    descriptor_module: Any = None,
    servicer_add_fn: Callable[[Any, Any], Any] | None = None,
    protocol_class: Callable[..., RPCPluginProtocol] | None = None,
    **kwargs: Any,
) -> RPCPluginProtocol:
    """Make a protocol: what registers a handler with a plugin's server.

    Args:
        service_name: The service's name.
        descriptor_module: The generated module that describes the service.
        servicer_add_fn: Registers the handler: called as `servicer_add_fn(handler, server)`, where
            `server.add_service(x)` takes whatever has `__mapping__()`. By default the handler
            itself has it.
        protocol_class: A class of your own instead. It gets what is given here as far as its
            constructor takes it; the rest is set as attributes.
        kwargs: More arguments for the constructor of that class.

    Raises:
        ProtocolError: Arguments without a class that would take them.
    """
    if protocol_class is None:
        from pyvider_rpcplugin.protocol import BasicProtocol  # noqa: PLC0415 - as above

        if kwargs:
            msg = f"plugin_protocol() has no option {next(iter(kwargs))!r}"
            raise ProtocolError(msg, hint="only a protocol_class takes options of its own")
        return BasicProtocol(service_name, descriptor_module, servicer_add_fn)
    given = {
        name: value
        for name, value in (
            ("service_name", service_name),
            ("descriptor_module", descriptor_module),
            ("servicer_add_fn", servicer_add_fn),
        )
        if value is not None
    }
    taken = {name: value for name, value in given.items() if _takes(protocol_class, name)}
    protocol = protocol_class(**taken, **kwargs)
    for name, value in given.items():
        if name not in taken:
            setattr(protocol, name, value)
    return protocol


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (
            parameter.name == keyword
            and parameter.kind in {parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        )
        for parameter in parameters
    )
