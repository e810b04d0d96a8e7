"""A misspelt name is found by what it is most like, and a name that is like none is not guessed at."""

from __future__ import annotations

import pytest

from velocitune_core.spelling import aside, did_you_mean, nearest, with_nearest

NAMES = ("recommended", "step_size", "by_size", "doremi")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("recomended", "recommended"),
        ("DoReMi", "doremi"),
        ("step-size", "step_size"),
        ("stepsize", "step_size"),
        ("by size", "by_size"),
        ("xyz", None),
        ("", None),
        (3, None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case_and_blanks(name: object, meant: str | None) -> None:
    assert nearest(name, NAMES) == meant
    assert did_you_mean(name, NAMES) == (f"; did you mean {meant}?" if meant else "")
    assert aside(name, NAMES) == (f" (did you mean {meant}?)" if meant else "")


def test_each_of_several_names_has_its_own() -> None:
    assert with_nearest(["doremy", "xyz"], NAMES) == "doremy (did you mean doremi?), xyz"
    assert with_nearest([], NAMES) == ""


def test_the_dashes_of_an_option_are_no_likeness() -> None:
    assert nearest("--foo", ["--out", "--all"]) is None
    assert nearest("--ouput", ["--output", "--out"]) == "--output"
