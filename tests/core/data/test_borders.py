"""What stands around every document, for the kinds of tokenizers there are, each loaded from a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from velocitune_core.config import Data
from velocitune_core.data.borders import BorderError, document_borders, largest_packed_id
from velocitune_core.data.dataset import load_split
from velocitune_core.data.packing.packer import pack_domain
from velocitune_core.data.sources import Document
from velocitune_core.data.splits import document_digest, is_held_out
from velocitune_core.model.folder import ModelError
from velocitune_core.model.tokenizer import load_tokenizer

DATA = Data(path="data/raw", sequence_length=16, min_characters=1, held_out_fraction=0.3, held_out_sequences=1000)
BEGIN, END, TURN = "<|begin|>", "<|endoftext|>", "<|im_end|>"
CHAT = "{% for each in messages %}<|im_start|>{{ each.content }}<|im_end|>{% endfor %}"
Make = Callable[[], Any]


def byte_level(*, template: str = "$A", special: tuple[str, ...] = (END,), **named: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges; `template` is what it puts around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    pairs = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def llama_2() -> LlamaTokenizer:
    """SentencePiece's BPE with byte fallback, as Llama 2 has it."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abdcelmnort", "▁a", "ot"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return LlamaTokenizer(vocab=vocabulary, merges=[("▁", "a"), ("o", "t")], add_bos_token=True)


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram: its special tokens are pieces like all others."""
    pieces = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in "abcdeglmnorst<>/ |0123456789"),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


BOTH = {"bos_token": BEGIN, "eos_token": END, "special": (BEGIN, END)}
KINDS: dict[str, tuple[Make, list[str], list[str]]] = {  # tokenizer, what is put before a document, and after it
    "byte-level BPE": (lambda: byte_level(eos_token=END), [], [END]),
    "SentencePiece, Llama 2": (llama_2, ["<s>"], ["</s>"]),
    "Unigram": (unigram, [], ["</s>"]),
    "with BOS": (lambda: byte_level(template=f"{BEGIN} $A", **BOTH), [BEGIN], [END]),
    "BOS that it does not use": (lambda: byte_level(**BOTH), [], [END]),
    "with BOS and EOS": (lambda: byte_level(template=f"{BEGIN} $A {END}", **BOTH), [BEGIN], [END]),
    "with two tokens before": (
        lambda: byte_level(template=f"[g] {BEGIN} $A", eos_token=END, special=("[g]", BEGIN, END)),
        ["[g]", BEGIN],
        [END],
    ),
    "without EOS": (
        lambda: byte_level(template=f"{BEGIN} $A", bos_token=BEGIN, special=(BEGIN,)),
        [BEGIN],
        [],
    ),
    "BOS is EOS, as in OPT": (
        lambda: byte_level(template=f"{END} $A", bos_token=END, eos_token=END),
        [END],
        [],
    ),
    "pad is EOS": (lambda: byte_level(eos_token=END, pad_token=END), [], [END]),
    "added special tokens": (
        lambda: byte_level(eos_token=END, additional_special_tokens=["<|tool|>", TURN]),
        [],
        [END],
    ),
}


def folder_of(tokenizer: Any, folder: Path, **configs: Any) -> Path:
    tokenizer.save_pretrained(folder)
    for name, content in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def documents_of(count: int) -> list[Document]:
    """Texts that also spell out special tokens."""
    random = np.random.default_rng(0)
    words = ["a lot", "and", END, "</s>", "<s>", "bot", BEGIN]
    texts = [f"{number} " + " ".join(random.choice(words, 9)) for number in range(count)]
    return [Document(text, "d") for text in texts]


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_what_the_tokenizer_does(kind: str, tmp_path: Path) -> None:
    make, start, end = KINDS[kind]
    tokenizer: Any = load_tokenizer(str(folder_of(make(), tmp_path / "model")))
    borders = document_borders(tokenizer, DATA)
    assert (borders.start.tokens, borders.end.tokens) == (start, end)
    assert borders.start.ids == tokenizer.convert_tokens_to_ids(start)
    assert borders.end.ids == tokenizer.convert_tokens_to_ids(end)
    documents = documents_of(90)
    manifest = pack_domain("code", documents, tokenizer, DATA, None, tmp_path / "code")
    for split, held_out in ((manifest.train, False), (manifest.held_out, True)):
        stream = load_split(tmp_path / split.file).reshape(-1).tolist()
        expected = [d.text for d in documents if is_held_out(document_digest(d.text), 0.3) == held_out]
        found = cut(stream, borders.start.ids, borders.end.ids)
        assert len(found) > 5
        assert stream.count([*borders.start.ids, *borders.end.ids][-1]) <= len(expected) + 1  # none is in a text
        if kind != "Unigram":  # which has no piece for what its own special tokens spell
            texts = [tokenizer.decode(each, clean_up_tokenization_spaces=False).strip() for each in found]
            assert texts == expected[: len(found)]
        assert all(not {*borders.start.ids, *borders.end.ids} & set(each) for each in found)


def cut(stream: list[int], start: list[int], end: list[int]) -> list[list[int]]:
    """Return the documents of a stream of tokens that are whole; each must have both its borders."""
    separator, found = [*end, *start], []
    assert stream[: len(start)] == start
    position = len(start)
    for place in range(position, len(stream) - len(separator)):
        if place >= position and stream[place : place + len(separator)] == separator:
            found.append(stream[position:place])
            position = place + len(separator)
    return found


def test_the_end_of_text_of_an_instruct_model_is_not_the_end_of_a_turn(tmp_path: Path) -> None:
    special = (END, "<|im_start|>", TURN)
    tokenizer = byte_level(eos_token=TURN, pad_token=END, special=special, chat_template=CHAT)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    declared = {"eos_token_id": [ids[TURN], ids[END]]}
    both = load_tokenizer(str(folder_of(tokenizer, tmp_path / "both", generation_config=declared)))
    assert document_borders(both, DATA).end.tokens == [END]
    in_config = load_tokenizer(str(folder_of(tokenizer, tmp_path / "config", config={"eos_token_id": ids[END]})))
    assert document_borders(in_config, DATA).end.tokens == [END]
    only = load_tokenizer(str(folder_of(tokenizer, tmp_path / "only")))
    assert document_borders(only, DATA).end.tokens == [TURN]  # nothing else is declared
    base = byte_level(eos_token=END, special=special, chat_template=CHAT)  # its template never writes its own end
    base = load_tokenizer(str(folder_of(base, tmp_path / "base", generation_config=declared)))
    assert document_borders(base, DATA).end.tokens == [END]


@pytest.mark.parametrize(
    ("start", "end", "tokens"),
    [
        (None, "auto", ([], [END])),
        (BEGIN, None, ([BEGIN], [])),
        (END, "auto", ([END], [])),
        ("auto", TURN, ([BEGIN], [TURN])),
        ("auto", "\n", ([BEGIN], ["Ċ"])),
        (None, None, ([], [])),
    ],
)
def test_settings_name_tokens(start: str | None, end: str | None, tokens: tuple[list[str], list[str]]) -> None:
    tokenizer = byte_level(template=f"{BEGIN} $A", eos_token=END, special=(BEGIN, END, TURN))
    borders = document_borders(tokenizer, DATA.model_copy(update={"document_start": start, "document_end": end}))
    assert (borders.start.tokens, borders.end.tokens) == tokens


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        (
            {"document_start": "<|bos|>"},
            [r"data\.document_start: '<\|bos\|>' is 7 tokens .*name a special token \('<\|e"],
        ),
        (
            {"document_start": "two", "document_end": "three"},
            [r"data\.document_start: 'two' is 3 tokens", r"data\.document_end: 'three' is 5 tokens .*'auto' or null"],
        ),
        (
            {"document_start": END, "document_end": END},
            [r"data\.document_start and .* both are '<\|end.* set one to null"],
        ),
        ({"document_start": None, "document_end": None, "document_mask": True}, [r"document_mask: true, and no token"]),
        (
            {"document_end": "\n", "document_mask": True},
            [r"document_mask: true, and 'Ċ', .* may also occur inside a text"],
        ),
    ],
)
def test_what_cannot_be_is_refused_with_field_value_and_fix(changes: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(BorderError) as refused:
        document_borders(byte_level(eos_token=END), DATA.model_copy(update=changes))
    lines = str(refused.value).splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert re.search(problem, line), line


def test_a_tokenizer_without_any_border_is_refused() -> None:
    with pytest.raises(
        BorderError, match=r"data\.document_end: 'auto', and the tokenizer has no end-of-text token; name"
    ):
        document_borders(byte_level(), DATA)


def test_where_positions_start_again() -> None:
    masked = DATA.model_copy(update={"document_mask": True})
    begins = document_borders(byte_level(template=f"{BEGIN} $A", **BOTH), masked)
    assert begins.attention_start == begins.start.ids[0]
    ends = document_borders(byte_level(eos_token=END), masked)
    assert ends.attention_start == ends.end.ids[0]
    assert ends.described() == "start none, end <|endoftext|>, attention inside each document"
    assert document_borders(byte_level(eos_token=END), DATA).attention_start is None


def test_a_tokenizer_written_in_python_is_refused(tmp_path: Path) -> None:
    slow = ByT5Tokenizer()
    assert document_borders(slow, DATA).end.tokens == ["</s>"]
    slow.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"model\.path: .* has no fast tokenizer, only ByT5Tokenizer.* tokenizer\.json"
    ):
        load_tokenizer(str(tmp_path))


def test_a_sentencepiece_file_alone_is_refused_where_it_cannot_be_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ModelError, match=r"has a SentencePiece model alone \(tokenizer\.model\)"):
        load_tokenizer(str(tmp_path))


def test_a_special_token_that_is_never_packed_needs_no_embedding() -> None:
    """Gemma 3's models of text have one of pictures, after their last embedding."""
    tokenizer = byte_level(special=(END, "<image>"), eos_token=END)
    assert largest_packed_id(tokenizer, DATA) == 256 == tokenizer.convert_tokens_to_ids(END)
    assert largest_packed_id(tokenizer, DATA.model_copy(update={"document_end": "<image>"})) == 257
    tokenizer.add_tokens(["a word"])
    assert largest_packed_id(tokenizer, DATA) == 258
