"""A plugin that prints and logs what it is asked for, in all the ways there are."""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio.to_thread
from grpclib.const import Cardinality, Handler

from pyvider_rpcplugin import plugin_server
from tests.plugins import run_on
from tests.plugins.misc_plugin import Text

LINE = "x" * 1023


def flood(size: int) -> None:
    for number in range(size // 1024):
        print(f"{number:09d}{LINE[9:]}")


def in_many_ways() -> None:
    """One line each, by Python, straight to the descriptor, and by a child."""
    print("one")
    os.write(1, b"two\n")
    subprocess.run([sys.executable, "-c", "print('three')"], check=True)
    sys.stdout.buffer.write(b"four\n")
    sys.stdout.flush()
    print("fi", end="")
    print("ve")


def from_threads(count: int) -> None:
    def say(name: int) -> None:
        for number in range(100):
            # One write, as a line of its own.
            sys.stdout.write(f"{name} {number}\n")

    threads = [threading.Thread(target=say, args=(name,)) for name in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fail_in_thread() -> None:
    thread = threading.Thread(target=json.loads, args=("no json",), name="worker")
    thread.start()
    thread.join()


def fork() -> None:
    if os.fork() == 0:
        try:
            print("[WARN] forked", file=sys.stderr)
        finally:
            os._exit(0)


class Talker:
    async def _ask(self, stream) -> None:
        word, _, rest = (await stream.recv_message()).text.partition(" ")
        match word:
            case "say":
                print(rest)
            case "complain":
                print(rest, file=sys.stderr)
            case "raw":
                os.write(2, rest.encode("latin-1") + b"\n")
            case "crash-text":
                os.write(2, rest.encode() + b"\n")
            case "many-ways":
                in_many_ways()
            case "threads":
                await anyio.to_thread.run_sync(from_threads, int(rest))
            case "flood":
                flood(int(rest))
            case "flood-in-thread":
                await anyio.to_thread.run_sync(flood, int(rest))
            case "flood-stderr":
                sys.stderr.write(LINE * (int(rest) // len(LINE)))
            case "flood-by-child":
                code = f"import sys; sys.stdout.write({LINE!r} * {int(rest) // len(LINE)})"
                await anyio.run_process([sys.executable, "-c", code], stdout=1)
            case "log":
                level, _, message = rest.partition(" ")
                extra = {"n": 1, "nested": {"a": [1, 2]}, "odd": object}
                logging.getLogger("talker.part").log(int(level), message, extra=extra)
            case "log-exception":
                try:
                    json.loads("no json")
                except ValueError:
                    logging.getLogger("talker").exception("it failed")
            case "fail-in-thread":
                await anyio.to_thread.run_sync(fail_in_thread)
            case "fork":
                fork()
            case "streams":
                state = {"fileno": sys.stderr.fileno(), "tty": sys.stderr.isatty()}
                await stream.send_message(Text(json.dumps(state)))
                return
        await stream.send_message(Text(str(time.time())))

    def __mapping__(self):
        return {"/misc.Misc/Ask": Handler(self._ask, Cardinality.UNARY_UNARY, Text, Text)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop")
    parser.add_argument("--own-logging", action="store_true")
    parser.add_argument("--broken", action="store_true")
    options = parser.parse_args()
    if options.own_logging:
        logging.basicConfig(format="mine: %(message)s")
    stderr = sys.stderr
    server = plugin_server(handler=Talker())
    try:
        run_on("nothing" if options.broken else options.loop, server)
    finally:
        assert sys.stderr is stderr
        assert options.own_logging or not logging.getLogger().handlers
    print("after serving")


if __name__ == "__main__":
    main()
