"""Whether the files of a tokenizer are of one: tokenizer.json against what lies beside it. Needs no library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from velocitune_core.model.folder import FAST_TOKENIZER

_VERSION = "#version"  # first line of most merges.txt
_SHOWN = 3


def vocabulary_problems(path: str) -> list[str]:
    """Return why tokenizer.json is not of the tokenizer whose vocabulary lies beside it, as one line; empty if it is.

    Compared are vocab.json, vocab.txt and merges.txt, where they are. Tokens that were added to a vocabulary are left
    out: those of a chat are renamed and moved by many.
    """
    folder, tree = Path(path), _tree(Path(path) / FAST_TOKENIZER)
    model = tree.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocabulary, dict):
        return []  # of another kind, or none: reported when it is loaded
    added = _added(tree)
    for name, other in (("vocab.json", _tree(folder / "vocab.json")), ("vocab.txt", _lines(folder / "vocab.txt"))):
        wrong = [
            token
            for token, number in other.items()
            if vocabulary.get(token) != number and token not in added and number not in added.values()
        ]
        if wrong:
            listed = ", ".join(map(repr, wrong[:_SHOWN]))
            return [_not_of_one(path, name, f"{len(wrong)} of {len(other)} tokens ({listed}) have other ids")]
    merges = [each if isinstance(each, str) else " ".join(each) for each in model.get("merges") or []]
    stated = [each for each in _lines(folder / "merges.txt") if not each.startswith(_VERSION)]
    both = min(len(merges), len(stated))
    if merges and stated and (merges[:both] != stated[:both] or abs(len(merges) - len(stated)) > 1):  # a last line
        return [_not_of_one(path, "merges.txt", f"{len(stated)} merges are not the {len(merges)} of the other")]
    return []


def absent_tokens(path: str, tokens: Iterable[str]) -> list[str]:
    """Return a line for each of `tokens` that a configuration names and no file defines.

    transformers gives it a new id, after the last one, which the model was not trained with.
    """
    tree, config = _tree(Path(path) / FAST_TOKENIZER), _tree(Path(path) / "tokenizer_config.json")
    model = tree.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        return []
    decoder = config.get("added_tokens_decoder")
    declared = [_content(each) for each in decoder.values()] if isinstance(decoder, dict) else []
    defined = {*model["vocab"], *_added(tree), *declared, *_tree(Path(path) / "added_tokens.json")}
    problems = []
    for token in dict.fromkeys(each for each in tokens if each not in defined):
        names = [name for name, value in config.items() if name.endswith("_token") and _content(value) == token]
        problems.append(
            f"model.path: {path}/tokenizer_config.json: {' and '.join(names) or 'a special token'} is {token!r}, which "
            f"{FAST_TOKENIZER} does not have, so that the model was not trained with it; name a token that is there, "
            "or save the tokenizer that belongs to the model"
        )
    return problems


def _not_of_one(path: str, name: str, how: str) -> str:
    return (
        f"model.path: {path}: {FAST_TOKENIZER} and {name} are not of one tokenizer: of {name}, {how}; keep the files "
        "of the tokenizer that belongs to the model, downloaded again or saved with save_pretrained"
    )


def _tree(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _lines(file: Path) -> dict[str, int]:
    """Return the lines of a file with their numbers, from 0; none of a file that is not there."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return {}
    return {line.removesuffix("\r"): number for number, line in enumerate(lines) if line.strip()}


def _added(tree: Mapping[str, Any]) -> dict[str, int]:
    found = tree.get("added_tokens")
    return {each["content"]: each["id"] for each in found if "id" in each} if isinstance(found, list) else {}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
