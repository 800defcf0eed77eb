"""A provider in Python is driven as Terraform does it, with values that Terraform's library makes."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import with_go

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "terraform_provider"

DOCUMENT = [
    "object",
    {
        "name": "string",
        "content": "string",
        "executable": "bool",
        "path": "string",
        "sha256": "string",
        "modified": "string",
    },
]
LISTING = [
    "object",
    {
        "suffixes": ["set", "string"],
        "documents": ["list", ["object", {"name": "string", "size": "number"}]],
        "total": "number",
    },
]
UNKNOWN = "<unknown>"

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


class Terraform:
    """The host in Go, and the provider that it has started."""

    def __init__(self, host: Path, program: Path, messages: Any, level: str) -> None:
        self.messages = messages
        self.process = subprocess.Popen(
            [host, program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TF_LOG": level},
        )  # fmt: skip
        self.log: list[dict[str, Any]] = []
        self.done: dict[int, dict[str, Any]] = {}
        self.version = self.next_line()["version"]

    def next_line(self) -> dict[str, Any]:
        """The next line that is none of the log."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "log" not in said:
                return said
            self.log.append(said["log"])
        raise AssertionError(self.process.communicate()[1])

    def wait_for_log(self, message: str) -> dict[str, Any]:
        """Wait until this is logged."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line).get("log", {})
            if said.get("@message") == message:
                return said
        raise AssertionError(self.process.communicate()[1])

    def begin(self, **task: Any) -> int:
        assert self.process.stdin is not None
        number = len(self.done)
        self.done[number] = {}
        print(json.dumps({"id": number, **task}), file=self.process.stdin, flush=True)
        return number

    def end(self, number: int) -> dict[str, Any]:
        while not self.done[number]:
            said = self.next_line()
            self.done[said["id"]] = said
        assert "error" not in self.done[number], self.done[number]
        return self.done[number]

    def begin_call(self, name: str, **fields: Any) -> int:
        request = getattr(self.messages, name).Request(**fields).SerializeToString()
        return self.begin(call=name, request=base64.b64encode(request).decode())

    def end_call(self, name: str, number: int) -> Any:
        response = base64.b64decode(self.end(number).get("response", ""))
        return getattr(self.messages, name).Response.FromString(response)

    def call(self, name: str, **fields: Any) -> Any:
        return self.end_call(name, self.begin_call(name, **fields))

    def made(self, kind: Any, value: Any, unknown: dict[str, bool] | None = None) -> Any:
        """A value, as Terraform's library encodes it."""
        if value is not None and kind[0] == "object":
            value = dict.fromkeys(kind[1]) | value
        told = self.end(self.begin(type=kind, value=value, unknown=unknown or {}))
        return self.messages.DynamicValue(msgpack=base64.b64decode(told["msgpack"]))

    def read(self, kind: Any, value: Any) -> Any:
        """What Terraform's library understands."""
        encoded = base64.b64encode(value.msgpack).decode()
        return self.end(self.begin(type=kind, msgpack=encoded)).get("value")

    def plan(
        self, *, prior: Any, config: Any, proposed: Any, unknown: dict[str, bool] | None = None
    ) -> Any:
        return self.call(
            "PlanResourceChange",
            type_name="files_document",
            prior_state=self.made(DOCUMENT, prior),
            config=self.made(DOCUMENT, config, unknown),
            proposed_new_state=self.made(DOCUMENT, proposed, unknown),
        )

    def begin_apply(self, *, prior: Any, planned: Any, config: Any) -> int:
        return self.begin_call(
            "ApplyResourceChange",
            type_name="files_document",
            prior_state=self.made(DOCUMENT, prior),
            config=self.made(DOCUMENT, config),
            planned_state=planned,
        )

    def apply(self, *, prior: Any, planned: Any, config: Any) -> Any:
        """Apply a plan, and return what is there then."""
        number = self.begin_apply(prior=prior, planned=planned, config=config)
        response = self.end_call("ApplyResourceChange", number)
        assert not response.diagnostics
        return self.read(DOCUMENT, response.new_state)

    def refresh(self, state: Any) -> Any:
        response = self.call(
            "ReadResource", type_name="files_document", current_state=self.made(DOCUMENT, state)
        )
        return self.read(DOCUMENT, response.new_state)

    def finish(self) -> None:
        said, errors = self.process.communicate(timeout=50)
        self.log += [json.loads(line)["log"] for line in said.splitlines()]
        assert (self.process.returncode, errors) == (0, "")


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder of the protocol's modules. To make them takes a while, and the network."""
    if os.environ.get("INTEROP_GO") == "required" or with_go.has_modules("terraform_provider"):
        return with_go.prepare_modules("terraform_provider")
    pytest.skip("not made yet: `python examples/with_go.py --modules` takes half a minute")


@pytest.fixture
def messages(modules: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(modules)
    return importlib.import_module("tfplugin6_pb2")


@pytest.fixture
def program(modules: Path, loop: str, tmp_path: Path) -> Path:
    """The provider as it is shipped."""
    made = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "package.py"), str(tmp_path / "mirror"), loop],
        env={**os.environ, "PYTHONPATH": str(modules)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    return Path(made.stdout.rstrip())


@pytest.fixture
def start(go_programs: Path, program: Path, messages: Any) -> Iterator[Callable[..., Terraform]]:
    with contextlib.ExitStack() as stack:

        def start(level: str = "INFO") -> Terraform:
            terraform = Terraform(go_programs / "terraform", program, messages, level)
            stack.enter_context(terraform.process)
            stack.callback(terraform.process.kill)
            return terraform

        yield start


def configure(terraform: Terraform, folder: Path) -> None:
    config = terraform.made(["object", {"folder": "string"}], {"folder": str(folder)})
    assert not terraform.call("ValidateProviderConfig", config=config).diagnostics
    assert not terraform.call("ConfigureProvider", config=config).diagnostics


def of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_document_is_made_changed_and_deleted(
    start: Callable[..., Terraform], tmp_path: Path
) -> None:
    terraform = start("ERROR")
    assert terraform.version == 6
    store = tmp_path / "store"
    configure(terraform, store)

    # A text that is not known before something else is there.
    config = {"name": "a.txt", "content": "one"}
    planned = terraform.plan(
        prior=None, config=config, proposed=config, unknown={"content": True}
    ).planned_state
    plan = {"name": "a.txt", "executable": False, "path": str(store / "a.txt")}
    not_known = {"content": UNKNOWN, "sha256": UNKNOWN, "modified": UNKNOWN}
    assert terraform.read(DOCUMENT, planned) == plan | not_known

    planned = terraform.plan(prior=None, config=config, proposed=config).planned_state
    known = {"content": "one", "sha256": of("one"), "modified": UNKNOWN}
    assert terraform.read(DOCUMENT, planned) == plan | known
    first = terraform.apply(prior=None, planned=planned, config=config)
    assert first == plan | known | {"modified": first["modified"]}
    assert (store / "a.txt").read_text() == "one"

    # Nothing to do.
    again = terraform.plan(prior=first, config=config, proposed=first)
    assert terraform.read(DOCUMENT, again.planned_state) == first

    # Somebody else has changed it, and it is changed back.
    (store / "a.txt").write_text("two")
    drifted = terraform.refresh(first)
    assert (drifted["content"], drifted["sha256"]) == ("two", of("two"))
    config["executable"] = True  # type: ignore[assignment]
    back = terraform.plan(prior=drifted, config=config, proposed=drifted | config)
    assert list(back.requires_replace) == []
    assert terraform.read(DOCUMENT, back.planned_state) == plan | known | {"executable": True}
    second = terraform.apply(prior=drifted, planned=back.planned_state, config=config)
    assert (store / "a.txt").read_text() == "one"
    assert os.access(store / "a.txt", os.X_OK)

    # Another name takes another file.
    other = terraform.plan(
        prior=second, config=config | {"name": "b.txt"}, proposed=second | {"name": "b.txt"}
    )
    [path] = other.requires_replace
    assert [step.attribute_name for step in path.steps] == ["name"]

    deleted = terraform.made(DOCUMENT, None)
    assert terraform.apply(prior=second, planned=deleted, config=None) is None
    assert list(store.glob("*.txt")) == []
    assert terraform.refresh(second) is None
    terraform.finish()
    # It has logged nothing that Terraform would drop.
    ours = {"files", "provider", "pyvider_rpcplugin"}
    modules = {line.get("@module", "").partition(".")[0] for line in terraform.log}
    assert modules & ours == set()


def test_what_there_is_and_what_is_wrong(start: Callable[..., Terraform], tmp_path: Path) -> None:
    terraform = start()
    store = tmp_path / "store"
    store.mkdir()
    (store / "c.md").write_text("three")
    (store / "d.txt").write_text("four")
    (store / "e.md").mkdir()

    provided = terraform.call("GetProviderSchema")
    assert list(provided.resource_schemas) == ["files_document"]
    attributes = provided.resource_schemas["files_document"].block.attributes
    types = {attribute.name: json.loads(attribute.type) for attribute in attributes}
    assert types == DOCUMENT[1]
    roles = {it.name: (it.required, it.optional, it.computed) for it in attributes}
    assert roles["content"] == (True, False, False)
    assert roles["executable"] == (False, True, True)
    assert roles["sha256"] == (False, False, True)
    listing = provided.data_source_schemas["files_documents"].block.attributes
    nested = {it.name: it.nested_type for it in listing}["documents"]
    assert [it.name for it in nested.attributes] == ["name", "size"]

    # Before the folder is known, nothing can be done there.
    request = {"type_name": "files_document", "id": "c.md"}
    [trouble] = terraform.call("ImportResourceState", **request).diagnostics
    assert trouble.summary == "The folder of the files is not known yet"
    configure(terraform, store)
    [found] = terraform.call("ImportResourceState", **request).imported_resources
    assert terraform.read(DOCUMENT, found.state)["content"] == "three"
    request["id"] = "../c.md"
    [trouble] = terraform.call("ImportResourceState", **request).diagnostics
    assert trouble.summary == "There is no files_document '../c.md' to be imported"

    request["id"] = "e.md"
    [trouble] = terraform.call("ImportResourceState", **request).diagnostics
    assert str(store / "e.md") in trouble.summary

    wanted = terraform.made(LISTING, {"suffixes": [".md", ".rst"]})
    answer = terraform.call("ReadDataSource", type_name="files_documents", config=wanted)
    assert terraform.read(LISTING, answer.state) == {
        "suffixes": [".md", ".rst"], "documents": [{"name": "c.md", "size": 5}], "total": 5,
    }  # fmt: skip

    bad = terraform.made(DOCUMENT, {"name": "../c.md", "content": ""})
    checked = terraform.call("ValidateResourceConfig", type_name="files_document", config=bad)
    [trouble] = checked.diagnostics
    assert trouble.summary == "This is no name for a document"
    assert [step.attribute_name for step in trouble.attribute.steps] == ["name"]

    # Of a version that knew less: what it saved has what is missing at the next refresh.
    saved = terraform.messages.RawState(json=b'{"name": "c.md", "content": "three", "gone": 1}')
    upgraded = terraform.call("UpgradeResourceState", type_name="files_document", raw_state=saved)
    state = terraform.read(DOCUMENT, upgraded.upgraded_state)
    assert (state["name"], state["sha256"]) == ("c.md", None)
    assert terraform.refresh(state)["sha256"] == of("three")
    terraform.finish()


def test_a_stop_ends_what_waits_and_says_that_nothing_was_done(
    start: Callable[..., Terraform], tmp_path: Path
) -> None:
    terraform = start()
    store = tmp_path / "store"
    store.mkdir()
    configure(terraform, store)
    config = {"name": "a.txt", "content": "one"}
    planned = terraform.plan(prior=None, config=config, proposed=config).planned_state
    with open(store / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = terraform.begin_apply(prior=None, planned=planned, config=config)
        said = terraform.wait_for_log("another process is writing")
        assert (said["@level"], said["folder"]) == ("info", str(store))
        assert terraform.call("StopProvider").Error == ""
        answer = terraform.end_call("ApplyResourceChange", number)
    assert [trouble.summary for trouble in answer.diagnostics] == ["Stopped"]
    assert terraform.read(DOCUMENT, answer.new_state) is None
    assert not (store / "a.txt").exists()
    # It is not the provider that was stopped.
    assert terraform.apply(prior=None, planned=planned, config=config)["content"] == "one"
    terraform.finish()
