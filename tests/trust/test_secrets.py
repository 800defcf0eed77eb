"""No private key and no cookie is to be found where somebody else could look."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin import RPCPluginError, plugin_client, plugin_server
from pyvider_rpcplugin.crypto import auto_certificate
from tests.crypto.material import Material
from tests.plugins import broken, echo
from tests.plugins.echo_plugin import Echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.trust.material import authority, host_settings, plugin_environment, signed
from tests.trust.watching import somebody_else, watched

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.process

# What a host makes for its plugin's socket, and what a plugin makes in it.
EXPECTED = re.compile(r"rpcplugin-host-\w+|lock-?|plugin-\w+\.sock")


def needles(*keys: bytes) -> list[bytes]:
    """Each form in which a key might lie around; a part of it is enough."""
    import base64

    found = [b"PRIVATE KEY", b"EC PRIVATE"]
    for key in keys:
        # The number itself stands near the beginning of its DER.
        number = key[7:39]
        assert len(number) == 32
        found += [number, number.hex().encode(), base64.b64encode(key)[12:60]]
    return found


async def ask(client: Any, text: str) -> str:
    return str((await client.stub(EchoStub).Unary(EchoRequest(text=text))).text)


@pytest.mark.parametrize("own", [False, True], ids=["auto", "own"])
async def test_twenty_starts_leave_no_key_on_any_disk_and_nothing_at_all(
    own: bool, anyio_backend: tuple[str, Any], tmp_path: Path
) -> None:
    folder = Path(os.environ["TMPDIR"])
    options: dict[str, Any] = {}
    keys = [auto_certificate().key_der]
    if own:
        options = host_settings(tmp_path, "P-256") | {"env": plugin_environment(tmp_path, "P-256")}
    # Two loops, two ways: twenty starts.
    # The other places are everybody's, so all that can be said is what is not in the files there.
    others = Path("/dev/shm"), Path("/var/tmp")
    with watched(folder, tmp_path, *others) as watch, anyio.fail_after(25):
        for number in range(5):
            loop = ("asyncio", "trio")[number % 2]
            async with plugin_client(echo("--loop", loop), **options) as client:
                its_keys = (await ask(client, "key")).split()
                assert len(its_keys) == (0 if own else 1)
                keys += map(bytes.fromhex, its_keys)
        assert os.listdir(folder) == []
    ours = [path for path in watch.paths if path.startswith((str(folder), str(tmp_path)))]
    names = [os.path.basename(path) for path in ours]
    assert {name for name in names if not EXPECTED.fullmatch(name)} == set()
    assert sum(name.endswith(".sock") for name in names) == 5
    for data in watch.contents:
        assert not any(needle in data for needle in needles(*keys))


async def test_another_user_sees_nothing_of_a_running_plugin() -> None:
    folder = Path(os.environ["TMPDIR"])
    os.chmod(folder, 0o755)
    with anyio.fail_after(20), somebody_else() as other:
        async with plugin_client(echo()) as client:
            launch: Any = client._launch
            socket = launch.record.address
            [place] = other.tries("list", str(folder))
            assert EXPECTED.fullmatch(place)
            assert os.path.dirname(socket) == str(folder / place)
            for action, path in (
                ("list", os.path.dirname(socket)),
                ("connect", socket),
                ("remove", socket),
                ("read", f"/proc/{client.pid}/environ"),
                ("list", f"/proc/{client.pid}/fd"),
                ("read", f"/proc/{os.getpid()}/environ"),
            ):
                assert other.tries(action, path) == "PermissionError"
            seen = other.tries("read", f"/proc/{client.pid}/cmdline")
            assert "echo_plugin.py" in seen
            assert not secret_in(seen.encode(), auto_certificate().key_der)


async def test_a_socket_of_a_fixed_path_is_not_open_to_others(tmp_path: Path) -> None:
    folder = Path(os.environ["TMPDIR"])
    os.chmod(folder, 0o755)
    before = os.umask(0)
    try:
        server = plugin_server(
            handler=Echo(), standalone=True, transport_path=folder / "s", auto_mtls=False
        )
        with anyio.fail_after(10), somebody_else() as other:
            async with server.serve() as address:
                assert other.tries("connect", address) == "PermissionError"
    finally:
        os.umask(before)


async def test_a_group_that_is_let_in_may_connect_and_nobody_else() -> None:
    folder = Path(os.environ["TMPDIR"])
    os.chmod(folder, 0o755)
    group = 54321
    with anyio.fail_after(20), somebody_else(group) as member, somebody_else() as other:
        async with plugin_client(echo(), unix_socket_group=str(group)) as client:
            assert await ask(client, "env:PLUGIN_UNIX_SOCKET_GROUP") == str(group)
            launch: Any = client._launch
            socket = launch.record.address
            found = os.stat(socket)
            assert (found.st_gid, found.st_mode & 0o777) == (group, 0o660)
            found = os.stat(os.path.dirname(socket))
            assert (found.st_gid, found.st_mode & 0o777) == (group, 0o770)
            assert member.tries("connect", socket) == "connected"
            assert other.tries("connect", socket) == "PermissionError"
            assert other.tries("list", os.path.dirname(socket)) == "PermissionError"
            # Being let to the socket is not being let in.
            assert await ask(client, "seen") == "env:PLUGIN_UNIX_SOCKET_GROUP seen"


# --- what is written and said


COOKIE = "a-cookie-that-nobody-may-see"


async def test_no_secret_is_in_a_log_or_an_error_or_a_repr_or_the_arguments(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PLUGIN_LOG_LEVEL", "DEBUG")
    said: list[str] = []
    host, plugin, stranger = signed("P-256"), signed("P-384"), signed("P-521", by="other")
    for name, own in (("PLUGIN_CLIENT", host), ("PLUGIN_SERVER", plugin)):
        monkeypatch.setenv(f"{name}_CERT", own.pem)
        monkeypatch.setenv(f"{name}_KEY", own.key_pem)
    monkeypatch.setenv("PLUGIN_CA_CERT", authority().pem)
    monkeypatch.setenv("PLUGIN_MAGIC_COOKIE_VALUE", COOKIE)
    text = stranger.key_pem
    keys = [host, plugin, stranger]
    with anyio.fail_after(25):
        async with plugin_client(echo("--log")) as client:
            # A host's private key is no plugin's business.
            assert await ask(client, "env:PLUGIN_CLIENT_KEY") == ""
            assert await ask(client, "env:PLUGIN_MAGIC_COOKIE") == COOKIE
            said += [*everything_of(client), *arguments_of(client.pid or 0)]
            said += arguments_of(os.getpid())
        # The plugin's own lines come through the host's log.
        assert "server.listening" in caplog.text
        failing: list[tuple[list[str], dict[str, Any]]] = [
            (echo(), {"env": {"PLUGIN_SERVER_KEY": text}}),
            (echo(), {"env": {"PLUGIN_SERVER_KEY": text[:-100]}}),
            (echo(), {"env": {"PLUGIN_SERVER_KEY": "".join(text.split("\n")[1:-2])}}),
            (echo(), {"client_key": text}),
            (echo(), {"client_key": text[40:]}),
            (echo(), {"client_key": text.replace("\n", "")}),
            (echo(), {"client_key": text + text}),
            (echo(), {"client_cert": text}),
            (echo(), {"ca_cert": text}),
            (echo(), {"env": {"PLUGIN_CLIENT_KEY": text}}),
            (echo(), {"env": {"PLUGIN_MAGIC_COOKIE_KEY": "PLUGIN_OTHER_COOKIE"}}),
            (echo(), {"magic_cookie_value": COOKIE + "\0"}),
            (echo(), {"env": {"PLUGIN_MAGIC_COOKIE": 3}}),
            (broken("exits"), {}),
            ([sys.executable, "-c", "import sys; sys.exit('bye')"], {}),
        ]
        for command, options in failing:
            said += await failure_of(command, options)
    said.append(caplog.text)
    assert "process.started" in caplog.text
    everything = "\n".join(said)
    assert COOKIE not in everything
    for key in keys:
        for line in key.key_pem.split("\n")[1:-2]:
            assert line not in everything
    assert "PRIVATE KEY-----" not in everything


async def failure_of(command: list[str], options: dict[str, Any]) -> list[str]:
    """Everything that can be seen of a start that fails."""
    client = plugin_client(command, client_retry_enabled=False, **options)
    with pytest.raises(RPCPluginError) as caught:
        await client.start()
    error = caught.value
    parts = [str(error), repr(error), *error.stderr_tail]
    parts += traceback.format_exception(error)
    return [*parts, *everything_of(client)]


def everything_of(thing: object, depth: int = 4, seen: set[int] | None = None) -> Iterable[str]:
    """The repr of an object of ours, and of those that it is made of."""
    seen = set() if seen is None else seen
    if id(thing) in seen or depth == 0:
        return
    seen.add(id(thing))
    if not type(thing).__module__.startswith("pyvider_rpcplugin"):
        return
    yield repr(thing)
    names = [*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())]
    for name in names:
        yield from everything_of(getattr(thing, name, None), depth - 1, seen)


def arguments_of(pid: int) -> list[str]:
    return [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")]


def secret_in(data: bytes, *keys: bytes) -> bool:
    return any(needle in data for needle in needles(*keys))


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    own: Material = signed("P-256")
    with watched(tmp_path) as watch:
        (tmp_path / "x").write_text(own.key_pem)
        (tmp_path / "y").write_bytes(auto_certificate().key_der)
        (tmp_path / "z").write_text(auto_certificate().key_pem.replace("EC PRIVATE KEY", ""))
        while len(watch.contents) < 6:
            assert watch._thread.is_alive()
    key = auto_certificate().key_der
    assert all(secret_in(data, key) for data in watch.contents if data)
    assert {"x", "y", "z"} == {os.path.basename(path) for path in watch.paths}
