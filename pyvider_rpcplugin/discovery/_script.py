"""What a script says of the environment that it needs (PEP 723)."""

from __future__ import annotations

import tomllib

import msgspec

from pyvider_rpcplugin.exception import ConfigError

from ._toml import what_is_wrong

_BEGIN = "# /// script"
_END = "# ///"


class ScriptMetadata(msgspec.Struct, frozen=True, rename="kebab"):
    """What a script needs; further keys are for other tools.

    Attributes:
        dependencies: Its requirements.
        requires_python: The versions of Python that it runs with; empty: any.
    """

    dependencies: tuple[str, ...] = ()
    requires_python: str = ""


def script_metadata(source: bytes, path: str) -> ScriptMetadata | None:
    """Read a script's metadata; None if it has none.

    Raises:
        ConfigError: It is malformed, or there is more than one block of it.
    """
    text = source.decode("utf-8-sig", errors="replace")
    found = _blocks(text.splitlines())
    if not found:
        return None
    if len(found) > 1:
        raise _wrong(path, "there is more than one block of it", "Keep one `# /// script`.")
    try:
        return msgspec.convert(tomllib.loads("\n".join(found[0])), ScriptMetadata)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as exc:
        hint = 'It looks like `# dependencies = ["pillow >= 10"]`.'
        raise _wrong(path, what_is_wrong(exc), hint) from None


def _wrong(path: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"the script metadata of {path} is wrong: {what}", hint, phase="environment")


def _blocks(lines: list[str]) -> list[list[str]]:
    """The lines of each closed block, without their `# `."""
    found: list[list[str]] = []
    at = 0
    while at < len(lines):
        at += 1
        if lines[at - 1].rstrip() != _BEGIN:
            continue
        last = at
        end = None
        while last < len(lines) and (lines[last] == "#" or lines[last].startswith("# ")):
            if lines[last].rstrip() == _END:
                end = last
            last += 1
        if end is not None:
            found.append([line[2:] for line in lines[at:end]])
            at = end + 1
    return found
