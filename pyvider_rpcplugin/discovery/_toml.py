"""What is wrong with a TOML file, in words for whoever wrote it."""

from __future__ import annotations


def what_is_wrong(error: Exception) -> str:
    """Say which field is wrong and how, from what the reader of the file says."""
    # msgspec's end with the place: "Expected `str`, got `int` - at `$.name`".
    said, at, place = str(error).rpartition(" - at `$")
    if not at:
        said, place = str(error), ""
    field = place.rstrip("`").removeprefix(".")
    said = said[:1].lower() + said[1:]
    return f"{field}: {said}" if field else said
