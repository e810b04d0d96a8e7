"""Fields of an objective that take a number or numbers by name: one line for each that is wrong."""

from __future__ import annotations

import pytest

from velocitune_core.config import Mixture


@pytest.mark.parametrize("field", ["worse_than_static", "forgetting", "epochs", "least_share", "largest_share"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x", "'x' is no number; give a number for all, or numbers by name such as {code: 0.02}"),
        ("1e-2", "'1e-2' is no number; YAML reads it as text: write 0.01"),
        ({"code": "x"}, "Input should be a valid number at code (got 'x'); give a number for all, or"),
    ],
)
def test_a_wrong_limit_is_one_line_with_its_field_and_a_fix(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Mixture().changed({"objective": {field: value}})
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"objective.{field}: {said}")


def test_a_wrong_average_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^objective\.average: 3 is no average; give macro, by_size, .*$"):
        Mixture().changed({"objective": {"average": 3}})
    good = {"average": {"code": 2}, "epochs": 4, "least_share": {"code": 0.1}}
    assert Mixture().changed({"objective": good}).objective.epochs == 4
