"""The files of one tokenizer agree; those of two are refused, and a token that no file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velocitune_core.model.tokenizer_vocabulary import absent_tokens, vocabulary_problems

VOCABULARY = {"<s>": 0, "a": 1, "b": 2, "ab": 3, "abb": 4}
MERGES = [["a", "b"], ["ab", "b"]]


def write(folder: Path, added: list[dict[str, Any]], **model: Any) -> str:
    tree = {"added_tokens": added, "model": {"type": "BPE", "vocab": VOCABULARY, "merges": MERGES, **model}}
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    return str(folder)


@pytest.mark.parametrize("merges", [MERGES, ["a b", "ab b"]], ids=["pairs", "strings"])
@pytest.mark.parametrize("content", ["#version: 0.2\na b\nab b\n", "a b\r\nab b", "a b\n"])
def test_files_of_one_tokenizer_agree(tmp_path: Path, merges: object, content: str) -> None:
    """The last line of merges is lost where a file does not end with one."""
    path = write(tmp_path, [{"content": "<chat>", "id": 0}], merges=merges)
    (tmp_path / "vocab.json").write_text(json.dumps(VOCABULARY))  # whose <s> was renamed
    (tmp_path / "merges.txt").write_bytes(content.encode())
    assert vocabulary_problems(path) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("vocab.json", json.dumps({**VOCABULARY, "a": 2, "b": 1}), "2 of 5 tokens ('a', 'b') have other ids"),
        ("vocab.json", json.dumps({**VOCABULARY, "ba": 5}), "1 of 6 tokens ('ba') have other ids"),
        ("vocab.txt", "<s>\na\nb\nabb\nab\n", "2 of 5 tokens ('abb', 'ab') have other ids"),
        ("merges.txt", "ab b\na b\n", "2 merges are not the 2 of the other"),
        ("merges.txt", "a b\nab b\nb b\nb a\n", "4 merges are not the 2 of the other"),
    ],
)
def test_files_of_two_tokenizers_are_refused(tmp_path: Path, name: str, content: str, problem: str) -> None:
    path = write(tmp_path, [])
    (tmp_path / name).write_text(content)
    [line] = vocabulary_problems(path)
    assert f"tokenizer.json and {name} are not of one tokenizer: of {name}, {problem}; keep" in line


def test_a_token_is_absent_where_no_file_has_it(tmp_path: Path) -> None:
    path = write(tmp_path, [{"content": "<end>", "id": 5}])
    config = {"eos_token": {"content": "</s>"}, "bos_token": "</s>", "added_tokens_decoder": {"6": {"content": "<6>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert absent_tokens(path, ["<s>", "<end>", "<6>"]) == []
    [line] = absent_tokens(path, ["</s>", "</s>"])
    assert "tokenizer_config.json: eos_token and bos_token is '</s>', which tokenizer.json does not have" in line


@pytest.mark.parametrize("content", [None, "[]", "{", '{"model": {"vocab": [["a", 0.1]]}}'])
def test_nothing_is_compared_with_a_tokenizer_of_another_kind(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    assert vocabulary_problems(str(tmp_path)) == [] == absent_tokens(str(tmp_path), ["</s>"])
