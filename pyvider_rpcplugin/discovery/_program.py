"""A plugin's program: what a client is given as its command when it is more than a list of words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, final

import msgspec

from pyvider_rpcplugin._events import event_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyvider_rpcplugin.process import SecureConfig

    from ._environments import Environment

    OnProgress = Callable[["EnvironmentProgress"], Awaitable[object] | object]

logger = event_logger("pyvider_rpcplugin.discovery")

Source = Literal["program", "manifest", "entry point", "script", "module"]
Step = Literal["waiting", "creating", "installing", "output", "ready"]


class EnvironmentProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A step in the making of a plugin's environment.

    Attributes:
        kind: "waiting": somebody else makes it, or is ending the making of it; "creating": it is
            begun; "installing": its requirements are being installed; "output": a line that the
            installer has printed; "ready": it is made.
        plugin: The plugin's name.
        environment: The folder of the environment.
        line: The line of "output".
    """

    kind: Step
    plugin: str
    environment: str
    line: str = ""


class PreparedProgram(msgspec.Struct, frozen=True):
    """What is started.

    Attributes:
        command: The program and its arguments.
        env: Variables that it needs, beside those that it inherits.
    """

    command: list[str]
    env: dict[str, str]


@final
class PluginProgram:
    """A plugin that can be started: `plugin_client` and all its kin take it as their command.

    Made by `discover` and `python_plugin`.

    Attributes:
        name: What it is called.
        source: How it was found, or made.
        path: Where: the program's file, that of its manifest, the metadata of its distribution.
        version: Its version; empty if nothing says it.
        description: What it is for, likewise.
        protocol_versions: The versions of the application's protocol that it serves; empty if
            nothing says it. A host that does not say its own offers these.
        secure: The checksum that its program has to have; None if nothing says it.
    """

    __slots__ = (
        "_environment",
        "_on_progress",
        "_words",
        "description",
        "name",
        "path",
        "protocol_versions",
        "secure",
        "source",
        "version",
    )

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        *,
        source: Source,
        path: str,
        version: str = "",
        description: str = "",
        protocol_versions: tuple[int, ...] = (),
        secure: SecureConfig | None = None,
        environment: Environment | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Not for users.

        Args:
            name: What it is called.
            words: The program and its arguments; in an environment, what follows the interpreter.
            source: How it was found.
            path: Where it was found.
            version: Its version.
            description: What it is for.
            protocol_versions: The versions of the application's protocol.
            secure: The checksum of the program.
            environment: What a program in Python runs in.
            on_progress: Is told about the making of that.
        """
        self.name: str = name
        self.source: Source = source
        self.path: str = path
        self.version: str = version
        self.description: str = description
        self.protocol_versions: tuple[int, ...] = protocol_versions
        self.secure: SecureConfig | None = secure
        self._words = tuple(words)
        self._environment = environment
        self._on_progress = on_progress

    def __repr__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"<PluginProgram {self.name}{version}, {self.source} {self.path}>"

    async def prepare(
        self, on_progress: OnProgress | None = None, *, secure: SecureConfig | None = None
    ) -> PreparedProgram:
        """Make the environment that it runs in, if it has one that is not made yet.

        Each start of a client does this first. To do it before, for example when a plugin is
        installed, keeps the first start short.

        Args:
            on_progress: Called with each `EnvironmentProgress`; may be asynchronous. By default
                that which the program was made with. What it raises is logged.
            secure: The checksum that a script has to have before what it says is installed; by
                default that which the program was made with.

        Returns:
            What is to be started.

        Raises:
            ConfigError: The script's metadata is wrong, or there is no such interpreter.
            SecurityError: The script does not have its checksum, or others than this user may
                write to the folder for environments.
            TransportError: The environment cannot be made: `stderr_tail` has what was printed.

        Cancellation:
            Ends the making of the environment, of which nothing is left then.
        """
        if self._environment is None:
            return PreparedProgram(list(self._words), {})
        teller = Teller(self.name, on_progress or self._on_progress)
        python, env = await self._environment.prepare(teller, secure or self.secure)
        return PreparedProgram([python, *self._words], env)


class Teller:
    """Tells what happens, to the log and to who wants to know."""

    def __init__(self, name: str, on_progress: OnProgress | None) -> None:
        self.name = name
        self._on_progress = on_progress

    async def tell(self, kind: Step, folder: str, line: str = "") -> None:
        """Tell a step."""
        level = logging.DEBUG if kind == "output" else logging.INFO
        logger.log(level, "environment.%s plugin=%s folder=%s %s", kind, self.name, folder, line)
        if self._on_progress is None:
            return
        event = EnvironmentProgress(kind=kind, plugin=self.name, environment=folder, line=line)
        try:
            result: Any = self._on_progress(event)
            if hasattr(result, "__await__"):
                await result
        except Exception:
            logger.exception("environment.callback_failed plugin=%s", self.name)
