"""Where sockets lie when the usual place will not do, as a user who may not write everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.trust.watching import NOBODY

pytestmark = pytest.mark.process

# All is loaded before it becomes another user, who may not read our interpreter's files.
PROGRAM = """
import json, os, sys, anyio, anyio._backends._asyncio, grp
import pyvider_rpcplugin
from pyvider_rpcplugin.client._folder import socket_folder
from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.transport import UnixSocketTransport
os.setgroups([]); os.setgid({user}); os.setuid({user})
def host(parent, group=""):
    with socket_folder(parent, group) as folder:
        return folder
def plugin(folder, group=None):
    async def listen():
        async with UnixSocketTransport(folder=folder or None, group=group).listen() as listener:
            return listener.address
    return anyio.run(listen)
answers = []
for side, *arguments in json.loads(sys.argv[1]):
    try:
        answers.append({{"host": host, "plugin": plugin}}[side](*arguments))
    except RPCPluginError as error:
        answers.append([type(error).__name__, error.message, error.hint])
print(json.dumps(answers))
"""


def as_nobody(*questions: list[Any], **env: str) -> list[Any]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(user=NOBODY), json.dumps(questions)],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    answers: list[Any] = json.loads(done.stdout)
    return answers


@pytest.fixture
def place() -> Path:
    folder = Path(os.environ["TMPDIR"])
    folder.chmod(0o755)
    return folder


def test_a_temporary_folder_that_may_not_be_written_to_is_passed_over(place: Path) -> None:
    good = Path(tempfile.mkdtemp(dir=place))
    good.chmod(0o1777)
    host, plugin = as_nobody(["host", ""], ["plugin", ""], TMPDIR=str(place), TEMP=str(good))
    assert Path(host).parent == good
    assert Path(plugin).parent.parent == good
    good.rmdir()


def test_one_that_was_asked_for_and_may_not_be_written_to_is_an_error(place: Path) -> None:
    (kind, message, hint), (kind_2, message_2, hint_2) = as_nobody(
        ["host", str(place)], ["plugin", str(place)]
    )
    assert kind == kind_2 == "TransportError"
    assert str(place) in message
    assert str(place) in message_2
    assert "permission denied" in message
    assert "permission denied" in message_2
    assert hint
    assert hint_2


def test_a_group_that_one_is_not_in_is_an_error(place: Path) -> None:
    good = Path(tempfile.mkdtemp(dir=place))
    good.chmod(0o1777)
    for kind, message, hint in as_nobody(
        ["host", str(good), "0"], ["plugin", str(good), "0"], ["host", "", "0"]
    ):
        assert kind == "TransportError"
        assert "cannot let the group 0 use" in message
        assert "member" in hint
    assert list(good.iterdir()) == []
    good.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_read_only_file_system_is_passed_over_or_named(place: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=place))
    code = PROGRAM.format(user=NOBODY)
    questions = json.dumps([["host", ""], ["host", str(folder)], ["plugin", str(folder)]])
    mount = f"mount -t tmpfs -o ro none {folder} && exec " + '"$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", code, questions],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    folder.rmdir()
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("this system does not let us mount anything")
    host, asked, plugin = json.loads(done.stdout)
    assert os.path.dirname(host) == "/tmp"
    for kind, message, _ in (asked, plugin):
        assert kind == "TransportError"
        assert "read-only" in message
