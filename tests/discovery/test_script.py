"""What a script says of the environment that it needs."""

from __future__ import annotations

import pytest

from pyvider_rpcplugin import ConfigError
from pyvider_rpcplugin.discovery._script import ScriptMetadata, script_metadata

BLOCK = """\
#!/usr/bin/env python3
# /// script
# requires-python = ">= 3.11"
# dependencies = [
#     "one >= 1",
#     # a comment
#
#     "two",
# ]
# [tool.other]
# key = 1
# ///
import one
"""


def test_its_requirements_are_read():
    found = script_metadata(BLOCK.encode(), "x.py")
    assert found == ScriptMetadata(("one >= 1", "two"), ">= 3.11")
    assert script_metadata(BLOCK.replace("\n", "\r\n").encode(), "x.py") == found
    _, _, block = BLOCK.partition("\n")
    assert script_metadata(block.encode("utf-8-sig"), "x.py") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import this\n",
        "# /// script\n# dependencies = []\nimport x\n# ///\n",
        "# /// other\n# ///\n",
    ],
    ids=["empty", "none", "not closed", "another kind"],
)
def test_a_script_that_says_nothing_is_one(text):
    assert script_metadata(text.encode(), "x.py") is None


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ('# dependencies = "one"', "dependencies: expected `array`, got `str`"),
        ("# requires-python = 3", "requires-python: expected `str`, got `int`"),
        ("# dependencies = [", ""),
        ("# ///\n\n# /// script\n# a = 1", "more than one block"),
    ],
)
def test_what_is_wrong_with_it_is_an_error_that_names_the_file(block, said):
    with pytest.raises(ConfigError) as caught:
        script_metadata(f"# /// script\n{block}\n# ///\n".encode(), "folder/x.py")
    assert caught.value.message.startswith("the script metadata of folder/x.py is wrong: ")
    assert said in caught.value.message
