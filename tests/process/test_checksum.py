from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import (
    ConfigError,
    RPCPluginError,
    SecureConfig,
    SecurityError,
    TransportError,
    plugin_client,
)
from pyvider_rpcplugin.process import Checked, checked
from pyvider_rpcplugin.process._verify import _script_index
from tests.plugins import echo

PYTHON = sys.executable
# It says what it is and what it knows of itself, and then how it was started.
SCRIPT = """\
import os, sys
print(__name__, __file__, sys.argv, sys.path[0], len(os.listdir("/proc/self/fd")))
import beside
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugin.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("print(__name__)\n")
    return tmp_path


def sha256(path: str | Path) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


async def output(command: list[str], secure: SecureConfig | None, **options: Any) -> str:
    """What a command writes that was started as `checked` says."""
    cwd = options.pop("cwd", None)
    async with checked(command, secure, os.environ, cwd) as program:
        done = execute(program, cwd)
        await program.check_again()
    return done.stdout


def execute(program: Checked, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program.command,
        executable=program.executable,
        pass_fds=program.pass_fds,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


async def refused(
    command: list[str], secure: SecureConfig, kind: type[RPCPluginError] = SecurityError
) -> RPCPluginError:
    with pytest.raises(kind) as caught:
        async with checked(command, secure, os.environ, None):
            pytest.fail("it was not refused")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


# --- what is checked


async def test_by_default_it_is_the_program_and_the_script_of_python(folder: Path) -> None:
    script = str(folder / "plugin.py")
    digest = hashlib.sha256(sha256(PYTHON) + sha256(script)).digest()
    for command in ([PYTHON, script, "a"], [PYTHON, "-B", "-X", "dev", "-W", "error", script]):
        assert SecureConfig.of(command).digest == digest
        await output(command, SecureConfig("sha256", digest))
        await output(command, SecureConfig("sha256", digest.hex().upper() + "\n"))
    assert SecureConfig.of([PYTHON, "-c", "pass"]).digest == sha256(PYTHON)
    true = shutil.which("true") or ""
    assert SecureConfig.of(["true"]).digest == sha256(true)
    await output(["true"], SecureConfig("sha256", sha256(true)))


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "sha3_256", "blake2b"])
async def test_files_that_are_named_are_checked_in_their_order(
    algorithm: str, folder: Path
) -> None:
    command = [PYTHON, str(folder / "plugin.py")]
    files = [folder / "plugin.py", folder / "beside.py"]
    secure = SecureConfig.of(command, algorithm, files=files)
    assert await output(command, secure)
    other = SecureConfig(algorithm, secure.digest, list(reversed(files)))
    await refused(command, other)
    one = SecureConfig.of(command, algorithm, files=files[:1])
    assert one.digest == hashlib.new(algorithm, files[0].read_bytes()).digest()
    assert await output(command, one)


async def test_relative_paths_count_from_the_plugins_folder(folder: Path) -> None:
    command = [PYTHON, "plugin.py"]
    for files in (None, ["plugin.py"]):
        secure = SecureConfig.of(command, files=files, cwd=folder)
        assert "__main__" in await output(command, secure, cwd=str(folder))
        assert (await refused(command, secure)).message.startswith("cannot take the checksum")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["p.py"], (1, "")),
        (["-u", "p.py", "-m"], (2, "")),
        (["-Wignore", "-W", "error", "-X", "dev", "-bb", "p.py"], (7, "")),
        (["-uWerror", "-uW", "error", "p.py"], (4, "")),
        (["--check-hash-based-pycs", "always", "p.py"], (3, "")),
        (["--", "-p.py"], (2, "")),
        (["-m", "p"], (None, "-m")),
        (["-um", "p"], (None, "-m")),
        (["-Ic", "pass"], (None, "-c")),
        (["-"], (None, "-")),
        ([], (None, "-")),
    ],
)
def test_the_script_is_found_among_the_words_of_the_command(words, found) -> None:
    assert _script_index(["python", *words]) == found


async def test_a_module_that_is_run_has_to_be_named(folder: Path) -> None:
    command = [PYTHON, "-m", "plugin"]
    with pytest.raises(ConfigError, match="named"):
        SecureConfig.of(command)
    await refused(command, SecureConfig("sha256", bytes(32)), ConfigError)
    secure = SecureConfig.of(command, files=[folder / "plugin.py"])
    assert "__main__" in await output(command, secure, cwd=str(folder))


# --- what is executed


async def test_a_script_that_was_checked_runs_as_if_it_had_not_been(folder: Path) -> None:
    link = folder / "elsewhere" / "link.py"
    link.parent.mkdir()
    link.symlink_to(folder / "plugin.py")
    for command in (
        [PYTHON, str(folder / "plugin.py"), "-m", "a b", ""],
        [PYTHON, "-B", str(link)],
        [PYTHON, "plugin.py", "x"],
    ):
        secure = SecureConfig.of(command, cwd=folder)
        plain = await output(command, None, cwd=str(folder))
        assert "beside" in plain
        assert await output(command, secure, cwd=str(folder)) == plain
    program = folder / "program"
    for first in (f"#!{PYTHON}", f"#! {PYTHON} -B", "#!/usr/bin/env python3"):
        program.write_text(f"{first}\n{SCRIPT}")
        program.chmod(0o755)
        for command in ([str(program), "x"], ["./program"]):
            secure = SecureConfig.of(command, cwd=folder)
            plain = await output(command, None, cwd=str(folder))
            assert await output(command, secure, cwd=str(folder)) == plain


async def test_an_archive_is_run_by_its_path_and_checked_again(folder: Path) -> None:
    archive = folder / "plugin.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", "print('from the archive')")
    command = [PYTHON, str(archive)]
    secure = SecureConfig.of(command)
    assert await output(command, secure) == "from the archive\n"
    async with checked(command, secure, os.environ, None) as program:
        archive.write_bytes(b"")
        with pytest.raises(SecurityError, match="while it was being started"):
            await program.check_again()


async def test_safe_path_is_heeded(folder: Path) -> None:
    (folder / "plugin.py").write_text("import sys; print(sys.path)\n")
    command = [PYTHON, "-P", str(folder / "plugin.py")]
    plain = await output(command, None)
    assert str(folder) not in plain
    assert await output(command, SecureConfig.of(command)) == plain


async def test_a_scripts_error_shows_its_lines(folder: Path) -> None:
    script = folder / "plugin.py"
    script.write_text("def fail():\n    raise ValueError(3)\nfail()\n")
    command = [PYTHON, str(script)]
    async with checked(command, SecureConfig.of(command), os.environ, None) as program:
        done = execute(program)
    assert f'File "{script}", line 2, in fail' in done.stderr
    assert "raise ValueError(3)" in done.stderr


async def test_what_takes_the_programs_place_after_the_check_is_not_executed(folder: Path) -> None:
    good, bad = folder / "good", folder / "bad"
    shutil.copy(shutil.which("echo") or "", good)
    shutil.copy(shutil.which("false") or "", bad)
    command = [str(good), "the checked one"]
    async with checked(command, SecureConfig.of(command), os.environ, None) as program:
        os.replace(bad, good)
        done = execute(program)
        assert done.stdout == "the checked one\n"
        await program.check_again()


async def test_what_takes_a_scripts_place_after_the_check_is_not_executed(folder: Path) -> None:
    script = folder / "plugin.py"
    script.write_text("print('the checked one')")
    program_file = folder / "program"
    program_file.write_text(f"#!{PYTHON}\nprint('the checked one')")
    program_file.chmod(0o755)
    for command in ([PYTHON, str(script)], [str(program_file)]):
        async with checked(command, SecureConfig.of(command), os.environ, None) as program:
            # Written into, which changes what a descriptor of the file reads.
            await anyio.Path(command[-1]).write_text("raise SystemExit(3)")
            done = execute(program)
            assert done.stdout == "the checked one\n"
            await program.check_again()


async def test_a_program_that_is_written_into_after_the_check_is_noticed(folder: Path) -> None:
    good = folder / "good"
    shutil.copy(shutil.which("echo") or "", good)
    command = [str(good)]
    async with checked(command, SecureConfig.of(command), os.environ, None) as program:
        async with await anyio.open_file(good, "r+b") as file:
            await file.seek(-1, os.SEEK_END)
            await file.write(b"\1")
        with pytest.raises(SecurityError, match="while it was being started"):
            await program.check_again()


async def test_further_files_and_scripts_of_others_are_checked_again(folder: Path) -> None:
    shell = folder / "plugin.sh"
    shell.write_text("#!/bin/sh\nexit 0\n")
    shell.chmod(0o755)
    for command, files, changed in (
        ([str(shell)], None, shell),
        ([PYTHON, str(folder / "plugin.py")], ["plugin.py", "beside.py"], folder / "beside.py"),
    ):
        paths = None if files is None else [folder / file for file in files]
        secure = SecureConfig.of(command, files=paths)
        async with checked(command, secure, os.environ, None) as program:
            await anyio.Path(changed).write_text("exit 3\n")
            with pytest.raises(SecurityError, match="while it was being started"):
                await program.check_again()


# --- what is refused


async def test_a_changed_file_is_refused_and_a_good_one_taken_again(folder: Path) -> None:
    script = folder / "plugin.py"
    command = [PYTHON, str(script)]
    secure = SecureConfig.of(command)
    assert await output(command, secure)
    script.write_text(SCRIPT + "#")
    error = await refused(command, secure)
    assert error.phase == "launch"
    assert "sha256" in error.message
    script.write_text(SCRIPT)
    assert await output(command, secure)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("md5", bytes(16)), "md5"),
        (("sha1", bytes(20)), "sha1"),
        (("sha-256", bytes(32)), "sha-256"),
        ((None, bytes(32)), "None"),
        (("sha256", bytes(31)), "32 bytes, not 31"),
        (("sha512", bytes(32)), "64 bytes, not 32"),
        (("sha256", ""), "not 0"),
        (("sha256", "nothing"), "hexadecimal"),
        (("sha256", 3), "hexadecimal"),
        (("sha256", bytes(32), []), "at least one"),
        (("sha256", bytes(32), "plugin.py"), "list"),
        (("sha256", bytes(32), [3]), "list"),
    ],
)
def test_a_wrong_checksum_is_a_config_error(arguments, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SecureConfig(*arguments)


async def test_files_that_cannot_be_hashed_are_named(folder: Path) -> None:
    secure = SecureConfig("sha256", bytes(32), [folder])
    assert "no regular file" in (await refused(["true"], secure)).message
    os.mkfifo(folder / "pipe")
    secure = SecureConfig("sha256", bytes(32), [folder / "pipe"])
    assert "no regular file" in (await refused(["true"], secure)).message
    secure = SecureConfig("sha256", bytes(32), [folder / "nothing"])
    assert "no such file" in (await refused(["true"], secure)).message
    secure = SecureConfig("sha256", bytes(32))
    await refused(["no-such-program-anywhere"], secure, TransportError)
    (folder / "file").touch()
    error = await refused([str(folder / "file")], secure, TransportError)
    assert "not executable" in error.message


def test_it_shows_what_it_is() -> None:
    assert repr(SecureConfig("sha256", bytes(32), ["a"])) == (
        f"SecureConfig('sha256', '{'00' * 32}', files=['a'])"
    )
    assert SecureConfig("sha256", "00" * 32) == SecureConfig("sha256", bytes(32))


# --- with a plugin


@pytest.mark.process
async def test_a_plugin_with_its_checksum_is_started_each_time(tmp_path: Path) -> None:
    secure = SecureConfig.of(echo())
    client = plugin_client(echo("--loop", "trio"), secure=secure)
    with anyio.fail_after(10):
        for _ in range(2):
            async with client:
                await client.ping()
    with anyio.fail_after(5), pytest.raises(SecurityError, match="checksum"):
        await plugin_client(echo(), secure=SecureConfig("sha256", bytes(32))).start()


@pytest.mark.process
async def test_a_plugin_that_is_changed_while_it_starts_is_not_called(tmp_path: Path) -> None:
    # It changes a file that is checked before it says where it can be called.
    beside = tmp_path / "beside"
    beside.write_text("good")
    script = tmp_path / "plugin.py"
    script.write_text(
        f"import runpy, sys; open({str(beside)!r}, 'w').write('bad'); sys.argv = ['x']\n"
        f"runpy.run_path({echo()[1]!r}, run_name='__main__')\n"
    )
    command = [PYTHON, str(script)]
    secure = SecureConfig.of(command, files=[script, beside])
    with anyio.fail_after(10), pytest.raises(SecurityError, match="while it was being started"):
        await plugin_client(command, secure=secure).start()


async def test_options_that_do_not_fit_are_said_at_the_start() -> None:
    wrong: Any = {"sha256": "00"}
    for options in ({"secure": wrong}, {"limits": wrong}):
        with pytest.raises(ConfigError, match="takes a"):
            await plugin_client(echo(), **options).start()
    with pytest.raises(ConfigError, match="attached"):
        await plugin_client(address="127.0.0.1:1", secure=SecureConfig("sha256", bytes(32))).start()
