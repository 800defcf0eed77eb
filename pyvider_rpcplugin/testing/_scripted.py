"""A plugin that does what a test wants, above all what plugins should not do."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["STEPS", "Scripted", "scripted_plugin"]

STEPS = {
    "stdout": "print a line",
    "raw": "write something to its standard output, as it is",
    "noise": "write so many bytes without a line's end to its standard output",
    "lines": "print so many lines",
    "stderr": "write a line to its standard error",
    "wait": "do nothing for so many seconds, the loop included",
    "exit": "end with this status",
    "signal": "end by this signal, such as SIGKILL",
    "hang": "do nothing any more, and never end by itself",
    "close-stdout": "close its standard output",
    "child": "leave a process that holds its outputs open",
    "once": "do what follows only if there is no such file yet, and make it",
    "not-grpc": "print a line, and then greet who connects with something that is not gRPC",
    "ignore-shutdown": "when it serves, do not end when its host asks it to",
    "ignore-sigterm": "do not end at SIGTERM",
    "serve": "serve `Scripted`; without it, too, when all is done",
}
"""What steps there are; those with a value are written `step:value`."""

_WITHOUT_VALUE = frozenset(
    {"hang", "close-stdout", "child", "not-grpc", "ignore-shutdown", "ignore-sigterm", "serve"}
)
_NUMBERS = frozenset({"noise", "lines", "wait", "exit"})


def scripted_plugin(*steps: str) -> list[str]:
    """Return the command of a plugin that takes these steps one after the other, and then serves.

    What it serves is `Scripted`: `client.proxy(Scripted)`.

    Args:
        steps: Such as `"stderr:starting"`, `"exit:3"` or `"hang"`; `STEPS` of this module's file
            lists them, and the page on tests.

    Raises:
        ValueError: There is no such step, or its value is missing or wrong.
    """
    for step in steps:
        verb, colon, value = step.partition(":")
        if verb not in STEPS:
            msg = f"there is no step {verb!r}: known are {', '.join(STEPS)}"
            raise ValueError(msg)
        if bool(colon) is (verb in _WITHOUT_VALUE):
            msg = f"the step {verb!r} {'takes no value' if colon else f'needs one: {verb}:...'}"
            raise ValueError(msg)
        if verb in _NUMBERS:
            float(value)
        if verb == "signal":
            getattr(signal, value)
    return [sys.executable, "-m", "pyvider_rpcplugin.testing._scripted", *steps]


class Scripted:
    """What the plugin serves: methods that behave badly when asked to."""

    async def echo(self, text: str) -> str:
        """Return the text."""
        return text

    async def pid(self) -> int:
        """Return the number of the plugin's process."""
        return os.getpid()

    async def count(self, to: int) -> AsyncIterator[int]:
        """Yield 1, 2, 3..."""
        for number in range(1, to + 1):
            yield number

    async def fail(self, text: str) -> None:
        """Raise a RuntimeError."""
        raise RuntimeError(text)

    async def hang(self) -> None:
        """Never answer."""
        import anyio  # noqa: PLC0415 - the steps before do not need it

        await anyio.Event().wait()

    async def block(self, seconds: float) -> None:
        """Keep the whole plugin from doing anything."""
        time.sleep(seconds)  # noqa: ASYNC251 - this is what is asked for

    async def die(self, status: int = 1) -> None:
        """End the plugin's process in the middle of the call."""
        os._exit(status)

    async def die_by(self, name: str) -> None:
        """End it by a signal, such as `SIGSEGV`."""
        os.kill(os.getpid(), getattr(signal, name))

    async def say(self, text: str, *, to_stderr: bool = False) -> None:
        """Print a line."""
        print(text, file=sys.stderr if to_stderr else sys.stdout, flush=True)


def _write(text: str, descriptor: int = 1) -> None:
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _hang() -> None:
    while True:
        time.sleep(3600)


def _take(verb: str, value: str) -> None:
    match verb:
        case "stdout":
            _write(f"{value}\n")
        case "raw":
            _write(value)
        case "noise":
            _write("x" * int(value))
        case "lines":
            _write("a line of noise\n" * int(value))
        case "stderr":
            _write(f"{value}\n", 2)
        case "wait":
            time.sleep(float(value))
        case "exit":
            os._exit(int(value))
        case "signal":
            os.kill(os.getpid(), getattr(signal, value))
        case "hang":
            _hang()
        case "close-stdout":
            os.close(1)
        case "child":
            if os.fork() == 0:
                _hang()
        case "not-grpc":
            _greet_wrongly()
        case "ignore-sigterm":
            signal.signal(signal.SIGTERM, _ignore)
        case _:
            pass  # It is for what is served.


def _ignore(*_: object) -> None:
    """Do nothing at a signal."""


def _greet_wrongly() -> None:
    import socket  # noqa: PLC0415 - most scripts do not need it

    with socket.create_server(("127.0.0.1", 0)) as listener:
        _write(f"1|1|tcp|127.0.0.1:{listener.getsockname()[1]}|grpc\n")
        connection, _ = listener.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        _hang()


def _serve(taken: set[str]) -> None:
    from pyvider_rpcplugin import plugin_server  # noqa: PLC0415 - the steps do not need it

    module: Any = importlib.import_module("pyvider_rpcplugin.server._server")
    if "ignore-shutdown" in taken:
        controller = module.ControllerService

        def deaf(before: Any, _: object) -> Any:
            return controller(before, lambda: None)

        module.ControllerService = deaf
    if "ignore-sigterm" in taken:
        module._catch_signals = _ignore  # noqa: SLF001 - as if it had none
    # By this name even where this module is the program.
    plugin_server(handler=Scripted()).run()


def _main(steps: list[str]) -> None:
    taken: set[str] = set()
    for step in steps:
        verb, _, value = step.partition(":")
        if verb == "once":
            if os.path.exists(value):
                break
            os.close(os.open(value, os.O_CREAT))
        if verb == "serve":
            break
        taken.add(verb)
        _take(verb, value)
    _serve(taken)


if __name__ == "__main__":
    _main(sys.argv[1:])
