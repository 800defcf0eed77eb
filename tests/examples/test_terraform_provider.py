"""OpenTofu runs a provider in Python, and finds of it what Terraform's protocol promises.

To build OpenTofu takes minutes, so that this is a session of nox's: `nox -s tofu`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import with_go

from .conftest import ROOT

EXAMPLE = ROOT / "examples" / "terraform_provider"
ADDRESS = "example.com/demo/files"

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


class Tofu:
    """OpenTofu, in a folder of its own with the example's configuration."""

    def __init__(self, program: Path, folder: Path, provider: Path) -> None:
        self.program = program
        self.provider = provider
        self.folder = folder / "configuration"
        self.store = folder / "store"
        self.settings = folder / "tofu.rc"
        shutil.copytree(EXAMPLE / "texts", self.folder)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TF_")
        } | {
            "TF_CLI_CONFIG_FILE": str(self.settings),
            "TF_VAR_folder": str(self.store),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    def find_provider_by(self, installation: str) -> None:
        self.settings.write_text(f"provider_installation {{\n  {installation}\n}}\n")

    def command(self, *arguments: str) -> list[str]:
        return [str(self.program), f"-chdir={self.folder}", *arguments]

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments, "-no-color"),
            capture_output=True, text=True, timeout=50, check=False, env=self.environment,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def plan(self) -> dict[str, Any]:
        """What is to be done, by resource."""
        self.run("plan", "-out=plan")
        plan = json.loads(self.run("show", "-json", "plan"))
        changes = {it["address"]: it["change"] for it in plan["resource_changes"]}
        return {name: it for name, it in changes.items() if it["actions"] != ["no-op"]}

    def actions(self) -> dict[str, list[str]]:
        return {name: change["actions"] for name, change in self.plan().items()}

    def change(self, old: str, new: str) -> None:
        file = self.folder / "main.tf"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def prepared() -> with_go.Prepared:
    if os.environ.get("INTEROP_TOFU") != "required":
        pytest.skip("takes OpenTofu, which takes minutes to build: `nox -s tofu`")
    return with_go.prepare("terraform_provider")


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def tofu(
    prepared: with_go.Prepared, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Tofu:
    monkeypatch.setenv("PYTHONPATH", str(prepared.modules))
    mirror = tmp_path / "mirror"
    made = subprocess.run(
        [sys.executable, EXAMPLE / "package.py", mirror, loop],
        capture_output=True, text=True, timeout=25, check=True,
    )  # fmt: skip
    # What is packaged needs no path.
    monkeypatch.delenv("PYTHONPATH")
    tofu = Tofu(prepared.program, tmp_path, Path(made.stdout.rstrip()))
    tofu.find_provider_by(f'filesystem_mirror {{ path = "{mirror}" }}')
    return tofu


def test_files_are_made_changed_imported_and_deleted(tofu: Tofu) -> None:
    greeting, script = tofu.store / "greeting.txt", tofu.store / "greet.sh"
    names = "files_document.greeting", "files_document.script"
    assert f"Installed {ADDRESS} v1.2.3" in tofu.run("init")

    plan = tofu.plan()
    assert {name: change["actions"] for name, change in plan.items()} == {
        names[0]: ["create"], names[1]: ["create"], "data.files_documents.texts": ["read"],
    }  # fmt: skip
    assert plan[names[0]]["after_unknown"] == {"modified": True}
    assert plan[names[0]]["after"]["path"] == str(greeting)
    unknown = {"content": True, "sha256": True, "modified": True}
    assert plan[names[1]]["after_unknown"] == unknown
    assert "2 added, 0 changed, 0 destroyed" in tofu.run("apply", "plan")
    assert greeting.read_text() == "Hello, Ada.\n"
    assert subprocess.check_output([script], text=True) == "Hello, Ada.\n"
    texts = json.loads(tofu.run("output", "-json"))["texts"]["value"]
    assert texts == [{"name": "greeting.txt", "size": 12}]
    assert tofu.plan() == {}

    # What others have done is undone.
    greeting.write_text("Hello, Bob.\n")
    script.unlink()
    assert tofu.actions() == {
        names[0]: ["update"], names[1]: ["create"], "data.files_documents.texts": ["read"],
    }  # fmt: skip
    assert "1 added, 1 changed, 0 destroyed" in tofu.run("apply", "plan")
    assert greeting.read_text() == "Hello, Ada.\n"
    assert tofu.plan() == {}

    assert "2 destroyed" in tofu.run("destroy", "-auto-approve")
    assert list(tofu.store.glob("[a-z]*")) == []


def test_a_file_is_imported_and_gets_another_name(tofu: Tofu) -> None:
    name = "files_document.greeting"
    tofu.run("init")
    tofu.run("apply", "-auto-approve")

    # What OpenTofu has forgotten is there all the same, and can be imported.
    tofu.run("state", "rm", name)
    assert "There is such a document" in tofu.run("apply", "-auto-approve", status=1)
    there_is_none = "There is no files_document 'none.txt' to be imported"
    assert there_is_none in tofu.run("import", name, "none.txt", status=1)
    assert "Import successful" in tofu.run("import", name, "greeting.txt")
    assert tofu.plan() == {}

    # Another name is another file, and a wrong one is none.
    tofu.change('"greeting.txt"', '"../hello.txt"')
    assert "This is no name for a document" in tofu.run("validate", status=1)
    tofu.change('"../hello.txt"', '"hello.txt"')
    assert tofu.plan()[name]["replace_paths"] == [["name"]]
    assert "1 added, 1 changed, 1 destroyed" in tofu.run("apply", "plan")
    assert sorted(path.name for path in tofu.store.glob("[a-z]*")) == ["greet.sh", "hello.txt"]


def test_a_provider_that_is_worked_on_is_run_as_it_is(tofu: Tofu) -> None:
    tofu.find_provider_by(f'dev_overrides {{ "{ADDRESS}" = "{tofu.provider.parent}" }}')
    log = tofu.folder / "log"
    tofu.environment |= {"TF_LOG": "JSON", "TF_LOG_PATH": str(log)}
    assert "Provider development overrides" in tofu.run("apply", "-auto-approve")
    assert "2 destroyed" in tofu.run("destroy", "-auto-approve")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    written = [record for record in records if record["@message"] == "written"]
    assert [(record["@level"], record["document"]) for record in written] == [
        ("info", "greeting.txt"), ("info", "greet.sh"),
    ]  # fmt: skip
    # The certificates are made for the run, on both sides.
    assert any(record["@message"] == "configuring client automatic mTLS" for record in records)
    forced = "plugin failed to exit gracefully"
    assert [record for record in records if record["@message"] == forced] == []


def test_a_provider_that_runs_already_is_used(
    tofu: Tofu, prepared: with_go.Prepared, loop: str
) -> None:
    # Nothing else is there that could be run.
    shutil.rmtree(tofu.provider.parent)
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLE / "files.py", loop, f"--debug={ADDRESS}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(prepared.modules)},
    ) as provider:  # fmt: skip
        try:
            assert provider.stdout is not None
            tofu.environment["TF_REATTACH_PROVIDERS"] = provider.stdout.readline()
            tofu.run("init")
            assert "2 added" in tofu.run("apply", "-auto-approve")
            assert "2 destroyed" in tofu.run("destroy", "-auto-approve")
            # It was left running.
            assert provider.poll() is None
        finally:
            provider.send_signal(signal.SIGINT)
        assert provider.wait(timeout=20) == 0


def test_ctrl_c_ends_what_waits(tofu: Tofu) -> None:
    tofu.run("init")
    tofu.store.mkdir()
    log = tofu.folder / "log"
    with open(tofu.store / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.mkfifo(log)
        with subprocess.Popen(
            tofu.command("apply", "-auto-approve", "-no-color"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=tofu.environment | {"TF_LOG_PROVIDER": "INFO", "TF_LOG_PATH": str(log)},
        ) as running:  # fmt: skip
            try:
                with open(log) as lines:
                    next(line for line in lines if "another process is writing" in line)
                    running.send_signal(signal.SIGINT)
                    # It waits if nobody reads this.
                    lines.read()
                said, _ = running.communicate(timeout=30)
            finally:
                running.kill()
    assert running.returncode == 1
    assert "Terraform was told to stop before this was done." in said
    assert list(tofu.store.glob("[a-z]*")) == []
    assert json.loads(tofu.run("show", "-json")).get("values") is None


def test_the_example_runs(tofu: Tofu, loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "examples/with_go.py", "terraform_provider", loop],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Apply complete! Resources: 2 added" in done.stdout
    assert "Destroy complete! Resources: 2 destroyed." in done.stdout
