"""The tokens around every document: what the settings name, or what the tokenizer itself puts around a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from velocitune_core.config import Data
from velocitune_core.contracts import Border, DocumentBorders
from velocitune_core.data.tokenize import PackingError, Tokenizer

_TEXT = "a"
_SHOWN = 8  # special tokens listed in a message


class BorderError(PackingError):
    """`data.document_start` or `document_end` does not suit the tokenizer; a line per problem, with field and fix."""


def document_borders(tokenizer: Tokenizer, data: Data) -> DocumentBorders:
    """Return the token ids that are packed before and after every document.

    `auto` is what the tokenizer puts around a text by itself. Where that is nothing at the end, documents are separated
    by its end-of-text token (see `end_of_text`), unless they begin with the same token, which separates them already.

    Raises BorderError with every problem: a token that is not exactly one id, no token between documents although
    none was not asked for, or a mask whose token may also occur inside a text.
    """
    problems: list[str] = []
    start, end = _around_a_text(tokenizer)
    if data.document_start != "auto":
        start = _chosen(tokenizer, "document_start", data.document_start, problems)
    if data.document_end != "auto":
        end = _chosen(tokenizer, "document_end", data.document_end, problems)
    elif not end and (separator := end_of_text(tokenizer)) is not None and [separator] != start:
        end = [separator]
    if data.document_end == "auto" and not start and not end:
        problems.append(
            "data.document_end: 'auto', and the tokenizer has no end-of-text token; name one of its special tokens "
            f"({_some_special(tokenizer)}), or set eos_token in its tokenizer_config.json"
        )
    if start and end and start[0] == end[-1]:
        problems.append(
            f"data.document_start and data.document_end: both are {_token(tokenizer, start[0])!r}; set one to null, as "
            "the other one separates documents already"
        )
    borders = DocumentBorders(start=_border(tokenizer, start), end=_border(tokenizer, end), mask=data.document_mask)
    if not problems and data.document_mask:
        problems += _mask_problems(tokenizer, borders)
    if problems:
        raise BorderError("\n".join(problems))
    return borders


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """Return the id that ends a document; None if the tokenizer has no end-of-sequence token.

    The end-of-sequence token of many instruct models ends a turn of a conversation: their chat template writes it. If
    config.json or generation_config.json, in the tokenizer's folder, name another end that the template does not
    write, this one ends a text (Llama 3: `<|end_of_text|>`, not `<|eot_id|>`; Qwen: `<|endoftext|>`, not `<|im_end|>`).
    """
    own = tokenizer.eos_token_id
    template = str(getattr(tokenizer, "chat_template", None) or "")

    def ends_a_turn(token_id: int) -> bool:
        token = _token(tokenizer, token_id)
        return token in template or (token_id == own and "eos_token" in template)

    if own is None or not ends_a_turn(own):
        return own
    return next((other for other in _declared_ends(tokenizer) if other != own and not ends_a_turn(other)), own)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids that the tokenizer treats as special, which packing never produces from the text of a document."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}


def largest_id(tokenizer: Tokenizer) -> int:
    """Return the largest token id of a tokenizer, with its added tokens."""
    return max(tokenizer.get_vocab().values())


def largest_packed_id(tokenizer: Tokenizer, data: Data) -> int:
    """Return the largest id that packing may write: of a text, or of a border of documents.

    A special token that is neither is left out: Gemma 3 has one of pictures that its models of text do not embed.
    """
    return largest_text_id(tokenizer, _border_ids(tokenizer, data))


def largest_text_id(tokenizer: Tokenizer, special: Iterable[int]) -> int:
    """Return the largest id of a tokenizer without its special tokens other than `special`."""
    unused = special_ids(tokenizer) - set(special)
    numbers: dict[str, int] = tokenizer.get_vocab()
    own: dict[str, int] = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    return max(number for token, number in numbers.items() if token in own or number not in unused)


def _border_ids(tokenizer: Tokenizer, data: Data) -> list[int]:
    try:
        borders = document_borders(tokenizer, data)
    except BorderError:
        return []  # reported by itself
    return [*borders.start.ids, *borders.end.ids]


def _around_a_text(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids before and after the text's own in an encoded text. Works for slow tokenizers, too."""
    plain: list[int] = list(tokenizer(_TEXT, add_special_tokens=False)["input_ids"])
    full: list[int] = list(tokenizer(_TEXT, add_special_tokens=True)["input_ids"])
    for first in range(len(full) - len(plain) + 1):
        if full[first : first + len(plain)] == plain:
            return full[:first], full[first + len(plain) :]
    return [], []  # it changes the text itself, so its additions cannot be found


def _chosen(tokenizer: Tokenizer, field: str, token: str | None, problems: list[str]) -> list[int]:
    """Return the id of a configured token, as a list; an empty one for None, or after adding a problem."""
    if token is None:
        return []
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token]] if token in vocabulary else list(tokenizer(token, add_special_tokens=False)["input_ids"])
    if len(ids) != 1 or ids[0] == getattr(tokenizer, "unk_token_id", None) != vocabulary.get(token):
        found = "unknown to the tokenizer" if len(ids) == 1 else f"{len(ids)} tokens of the tokenizer"
        problems.append(
            f"data.{field}: {token!r} is {found}, not one; name a special token ({_some_special(tokenizer)}), 'auto' "
            "or null"
        )
        return []
    return ids


def _mask_problems(tokenizer: Tokenizer, borders: DocumentBorders) -> list[str]:
    """Return why the borders of documents cannot be found in a packed row."""
    first = borders.first_id
    if first is None:
        return [
            "data.document_mask: true, and no token separates documents; set data.document_start or document_end to "
            "'auto', or data.document_mask to false"
        ]
    if first not in special_ids(tokenizer):
        token = _token(tokenizer, first)
        return [
            f"data.document_mask: true, and {token!r}, at which a document begins, may also occur inside a "
            f"text; choose a special token ({_some_special(tokenizer)}), or set data.document_mask to false"
        ]
    return []


def _declared_ends(tokenizer: Tokenizer) -> list[int]:
    """Return the eos_token_id of generation_config.json and config.json beside the tokenizer, in this order."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        try:
            tree = json.loads((Path(str(tokenizer.name_or_path)) / name).read_text(encoding="utf-8"))
            value = tree.get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
    return [each for each in found if each <= largest_id(tokenizer)]


def _border(tokenizer: Tokenizer, ids: Sequence[int]) -> Border:
    return Border(ids=list(ids), tokens=[_token(tokenizer, each) for each in ids])


def _token(tokenizer: Tokenizer, token_id: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token_id))


def _some_special(tokenizer: Tokenizer) -> str:
    names = [_token(tokenizer, each) for each in sorted(special_ids(tokenizer))]
    listed = ", ".join(map(repr, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
    return listed or "it has none"
