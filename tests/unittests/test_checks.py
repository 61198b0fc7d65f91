"""Argument checks: what passes, what does not, and the wording.

Authors
 * The iusp_plugin authors 2026
"""

import subprocess
import sys

import pytest

from iusp_plugin.checks import (
    check_choice,
    check_range,
    differences,
    first_five,
    near_names,
)


@pytest.mark.parametrize(
    "name, known, text",
    [
        ("blok4", ["block4"], "Did you mean 'block4'? Known: block4."),
        ("zzz", ["block4", "head"], "Known: block4, head."),
        ("x", [], "Known: (none)."),
        ("x", (n for n in ["x1"]), "Did you mean 'x1'? Known: x1."),
    ],
)
def test_near_names(name, known, text):
    assert near_names(name, known) == text


@pytest.mark.parametrize("value", ["SP", None, 3, "", ["sp"]])
def test_choice_is_exact(value):
    check_choice("loss", "sp", ("sp", "iusp"))
    with pytest.raises(ValueError, match=r"loss=.* is unknown\. .*sp, iusp"):
        check_choice("loss", value, ("sp", "iusp"))


def test_choices_may_be_an_iterator_or_a_mapping():
    check_choice("loss", "sp", iter(["iusp", "sp"]))
    check_choice("loss", "sp", {"sp": 1})
    with pytest.raises(ValueError, match="Known: iusp, sp"):
        check_choice("loss", "x", iter(["iusp", "sp"]))


@pytest.mark.parametrize(
    "value, low, high, low_open",
    [
        (0.0, 0, None, False),
        (1e-9, 0, None, True),
        (1, 0, 1, False),
        (-5, None, 0, False),
        (float("inf"), 0, None, False),
    ],
)
def test_range_passes(value, low, high, low_open):
    assert check_range("x", value, low, high, low_open=low_open) is None


@pytest.mark.parametrize(
    "value, low, high, low_open, text",
    [
        (-1, 0, None, False, r"x=-1 must be >= 0\."),
        (0, 0, None, True, r"x=0 must be > 0\."),
        (1.5, 0, 1, False, r"x=1.5 must be >= 0 and <= 1\."),
        (1, None, 0, False, r"x=1 must be <= 0\."),
        (float("nan"), 0, 1, False, "x=nan must be"),
        (float("nan"), None, 1, False, "x=nan must be"),
        (float("nan"), None, None, False, "x=nan must be"),
        (float("inf"), 0, 1, False, "x=inf must be"),
    ],
)
def test_range_refuses(value, low, high, low_open, text):
    with pytest.raises(ValueError, match=text):
        check_range("x", value, low, high, low_open=low_open)


def test_module_stays_light():
    code = (
        "import sys, iusp_plugin.checks; "
        "print(sorted({'torch', 'numpy', 'speechbrain'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_first_five():
    """Short lists in full."""
    assert first_five(["a", "b"]) == "a, b"
    assert first_five("abcdefg") == "a, b, c, d, e and 2 more"


def test_differences():
    """Sorted, with both values, and a value for what is absent."""
    assert differences({}, {}) == []
    known, now = {"a": None, "b": 1, "c": [1]}, {"b": 2, "c": [1], "d": "x"}
    assert differences(known, now) == [
        "  a: None there, '(absent)' now",
        "  b: 1 there, 2 now",
        "  d: '(absent)' there, 'x' now",
    ]
