"""A JSON array, element by element, wherever its text is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core.config import Source
from velocitune_core.data.json_array import ArrayError, array_elements
from velocitune_core.data.readers import SourceError
from velocitune_core.data.sources import MalformedRows, read_documents

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=4)


@settings(max_examples=60)
@given(st.lists(VALUES, max_size=5), st.booleans(), st.none() | st.integers(0, 2), st.integers(1, 40))
def test_any_array_is_read_in_parts_of_any_length(elements: list[Any], ascii_only: bool, indent: Any, at: int) -> None:
    text = f" {json.dumps(elements, ensure_ascii=ascii_only, indent=indent)}\n"
    parts = [text[start : start + at] for start in range(0, len(text), at)]
    assert list(array_elements(parts)) == elements


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1, 2", "it ends inside the array, at character 6"),
        ("[1 2]", "'2' in place of , or ], at character 4"),
        ("[1] 2", "text after the array, at character 5"),
        ("{}", r"'{' in place of \[, at character 1"),
        ('["a', "Unterminated string starting, at character 2"),
        ("[1,]", "Expecting value, at character 4"),
        (f"[{'9' * 5000}]", "JSON that cannot be read"),
    ],
)
@pytest.mark.parametrize("at", [1, 100_000])
def test_what_is_no_array_is_refused_with_its_place(text: str, problem: str, at: int) -> None:
    with pytest.raises(ArrayError, match=problem):
        list(array_elements(text[start : start + at] for start in range(0, len(text), at)))


def test_rows_of_an_array_are_counted_and_checked_like_lines(tmp_path: Path) -> None:
    rows: list[object] = [{"text": "a"}, "b", {"other": 1}, {"text": "é"}]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows, indent=1))
    source, malformed = Source(type="jsonl", path="a.json"), MalformedRows(allowed=2)
    found = [(each.text, each.origin) for each in read_documents(source, tmp_path, malformed)]
    assert found == [("a", "a.json:1"), ("é", "a.json:4")]
    assert malformed.shown == [
        f"{tmp_path}/a.json:2: a JSON str, not an object",
        f"{tmp_path}/a.json:3: no field 'text'; it has 'other': set text_field",
    ]
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"text": "b"')
    with pytest.raises(SourceError, match=r"a.json: Expecting ',' delimiter, at character 29"):
        list(read_documents(source, tmp_path))
