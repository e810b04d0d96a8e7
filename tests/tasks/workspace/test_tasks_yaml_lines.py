"""Overrides change their own lines of params.yaml, and no byte of another, however the user has laid it out."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.workspace import paths
from tasks.workspace.params_file import overridden_text
from tasks.workspace.yaml_lines import changed_lines_only, indent_of
from velocitune_core.config import parse_yaml

PROJECT = Path(__file__).parents[3]


def change(own: str, overrides: dict[str, Any]) -> list[str]:
    """Return the lines that overrides remove and add, each with its sign; the file then holds what they say."""
    paths.PARAMS.write_bytes(own.encode())
    text, _ = overridden_text(overrides)
    tree, expected = parse_yaml(text, "changed"), parse_yaml(own, "own")
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place = expected
        for section in sections:
            place = place[section]
        place[last] = value
    assert tree == expected
    lines = difflib.ndiff(own.splitlines(keepends=True), text.splitlines(keepends=True))
    return [line for line in lines if line.startswith(("-", "+"))]


@pytest.fixture
def own(workspace: Path) -> str:
    """The committed settings in another layout: quotes, spaces, indents, and a mapping over two lines."""
    text = (PROJECT / "params.yaml").read_text()
    for before, after in (
        ("  experiment: velocitune", "  experiment: 'velocitune'   # mine"),
        ("    source: {type: jsonl, path: code.jsonl}", '    source: {type: "jsonl",\n      path:   "code.jsonl"}'),
        ("  - 0.08\n  - 0.12\n  - 0.2\n  - 0.6\n", "    - 0.080\n    - 0.12\n    - 0.2\n    - 0.6\n"),
        ("  initial_domain_weights:  ", "  initial_domain_weights: ~"),
        ("\ndata:\n", "\n---\ndata:\n"),
    ):
        assert before in text
        text = text.replace(before, after, 1)
    return text


def test_other_lines_stay_byte_for_byte(own: str) -> None:
    changed = change(own, {"training.seed": 7, "domains.code.max_tokens": 5})
    assert [line.split("#")[0].strip() for line in changed] == [
        "-     max_tokens: 340000",
        "+     max_tokens: 5",
        "-   seed: 1",
        "+   seed: 7",
    ]


def test_a_list_with_another_indent_is_written_anew_as_a_whole(own: str) -> None:
    changed = change(own, {"proxies.fractions": [0.1, 0.12, 0.2, 0.6]})
    assert [line.strip() for line in changed if line.startswith("+")] == [
        f"+   - {each}" for each in (0.1, 0.12, 0.2, 0.6)
    ]
    assert len(changed) == 8


def test_a_value_in_a_mapping_over_two_lines_costs_that_mapping(own: str) -> None:
    changed = change(own, {"domains.code.source.path": "other.jsonl"})
    (written,) = [line for line in changed if line.startswith("+")]
    assert written.startswith("+     source: {type: jsonl, path: other.jsonl}") and len(changed) == 3


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_ends_stay(own: str, ending: str) -> None:
    changed = change(own.rstrip("\n").replace("\n", ending), {"training.seed": 7})
    assert [line for line in changed if "seed" in line] and all(line.endswith(ending) for line in changed[1:2])


def test_what_is_not_in_the_dump_stays() -> None:
    assert changed_lines_only("---\na: '1'\n", "a: 1\n", "a: 1\nb: 2\n") == "---\na: '1'\nb: 2\n"


def test_a_file_with_another_indent_keeps_its_lines(workspace: Path) -> None:
    own = re.sub(r"^( +)", r"\1\1", (PROJECT / "params.yaml").read_text(), flags=re.MULTILINE)
    assert indent_of(own) == 4 and len(change(own, {"training.seed": 5})) == 2


def test_what_cannot_be_merged_is_written_anew(workspace: Path) -> None:
    """Sections with an indent of their own, of which the dump changes a part: the lines together are no YAML."""
    first, *others = re.split(r"^(?=\w)", (PROJECT / "params.yaml").read_text(), flags=re.MULTILINE)
    odd = "".join([first, others[0], *(re.sub(r"^( +)", r"\1\1", each, flags=re.MULTILINE) for each in others[1:])])
    assert indent_of(odd) == 2
    change(odd, {"training.seed": 5})
