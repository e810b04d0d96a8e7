"""Ids of a long text in pieces are the ids of the whole text, whatever kind of tokenizer it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from velocitune_core.data.cutting import CONTEXT, Cutter, UncuttableError

LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
LLAMA_3 += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = [
    "def f(x):\n    return x ** 2  # don't\n\n\nclass A: pass",
    "The quick brown fox, 12345 times; 我们在这里，他们在那里。 naïve café — zebra 🙂🙂",
    "a  b   c\t\td e\r\nf g h 1,000.50 words words wording worded world",
] * 3


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return trained(tokenizer, trainers.BpeTrainer(**SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))


def llama_3() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trained(tokenizer, trainers.BpeTrainer(**SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("words words", normalized=False)])
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return trained(tokenizer, trainers.BpeTrainer(**SIZE, special_tokens=["<unk>"]))


def one_word() -> Tokenizer:
    """Llama 2: blanks are normalised, and the whole text is one word."""
    tree = json.loads(metaspace().to_str())
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = Tokenizer.from_str(json.dumps({**tree, "pre_tokenizer": None}))
    tokenizer.normalizer = prepend
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return trained(tokenizer, trainers.UnigramTrainer(**SIZE, special_tokens=["<unk>"], unk_token="<unk>"))


def with_added(kind: Callable[[], Tokenizer]) -> Callable[[], Tokenizer]:
    """After an added token, these put a blank before the rest, as they do before the whole text."""

    def make() -> Tokenizer:
        tokenizer = kind()
        tokenizer.add_tokens([AddedToken("words words", normalized=False), AddedToken("word", normalized=True)])
        tokenizer.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("x=1;", lstrip=True, normalized=False)])
        return tokenizer

    return make


ADDED = [with_added(kind) for kind in (byte_level, metaspace, one_word, unigram)]
SIZE = {"vocab_size": 400, "show_progress": False}


def trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@cache
def cutter(kind: Callable[[], Tokenizer]) -> Cutter:
    return Cutter(kind())


def in_pieces(cutter: Cutter, pieces: list[str]) -> list[int]:
    before = ["", *(piece[-CONTEXT:] for piece in pieces)]
    return [number for piece, end in zip(pieces, before, strict=False) for number in cutter.ids(piece, end)]


SAMPLES = [
    "word",
    "don't",
    "  ",
    " ",
    " ",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "1234567",
    "，",
    "我们",
    "naïve",
    "e\u0301",
]
SAMPLES += ["🙂", "…", "x=1;", "    ", "words words", "—", "A", "\u00a0", "한국어", "\u1112\u1161\u11ab"]
texts = st.lists(st.sampled_from(SAMPLES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=60)


@pytest.mark.parametrize("kind", [byte_level, llama_3, metaspace, one_word, unigram])
@settings(deadline=None, max_examples=40)
@given(words=texts, size=st.integers(1, 40), part=st.integers(1, 50))
def test_ids_in_pieces_are_those_of_the_whole(
    kind: Callable[[], Tokenizer], words: list[str], size: int, part: int
) -> None:
    text = "".join(words) * 8  # longer than what is looked at around a cut
    parts = [text[at : at + part] for at in range(0, len(text), part)]
    pieces = list(cutter(kind).pieces(parts, size, longest=10**6))
    assert "".join(pieces) == text
    assert in_pieces(cutter(kind), pieces) == cutter(kind).ids(text)


@pytest.mark.parametrize("kind", [byte_level, llama_3, metaspace, one_word, unigram])
def test_prose_is_cut_about_where_it_was_asked_for(kind: Callable[[], Tokenizer]) -> None:
    text = " ".join(CORPUS) * 20
    pieces = list(cutter(kind).pieces([text], 500))
    assert max(map(len, pieces)) < 1000 and len(pieces) > len(text) / 800
    assert in_pieces(cutter(kind), pieces) == cutter(kind).ids(text)


@pytest.mark.parametrize("kind", ADDED)
def test_a_blank_follows_an_added_token_in_every_piece(kind: Callable[[], Tokenizer]) -> None:
    text = "The quick fox, words wordsThe brown x=1; fox words words  naïve wordcafé. " * 40
    pieces = list(cutter(kind).pieces([text], 400))
    assert len(pieces) > 4
    assert in_pieces(cutter(kind), pieces) == cutter(kind).ids(text)


def test_a_merge_that_depends_on_characters_far_away_is_not_cut() -> None:
    vocabulary = {token: number for number, token in enumerate(["a", "-", "aa", "aaa", "aaa-"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "a"), ("aa", "a"), ("aaa", "-")]))  # the whole text is one word
    text = ("a" * 301 + "-") * 3  # of an odd run the last three join with what follows; 256 of them are even
    pieces = list(Cutter(tokenizer).pieces([text], 350, longest=10**6))
    assert in_pieces(Cutter(tokenizer), pieces) == tokenizer.encode(text).ids


def test_a_text_without_a_place_to_cut_is_refused_with_advice() -> None:
    with pytest.raises(UncuttableError, match=r"nowhere in 5,000 characters after 'aaaa.*divide it into several"):
        list(cutter(byte_level).pieces(["a" * 9000], 1000, longest=4000))
    assert list(cutter(byte_level).pieces(["a" * 3000], 1000, longest=4000)) == ["a" * 3000]


def test_special_tokens_in_a_piece_stay_text() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.encode_special_tokens = True
    assert len(Cutter(tokenizer).ids("<end>", "a")) == len("<end>")
