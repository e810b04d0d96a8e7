"""Packing of documents into rows: every token of every split is accounted for."""

import hashlib
import itertools
from functools import partial

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from velocitune_core.config import Data, Source
from velocitune_core.data.cutting import Cutter
from velocitune_core.data.dataset import load_split
from velocitune_core.data.packing.packer import pack_domain
from velocitune_core.data.sources import Document, read_documents
from velocitune_core.data.splits import document_digest, is_held_out
from velocitune_core.data.texts import FileText
from velocitune_core.data.tokenize import PackingError, tokenizer_digest

DATA = Data(path="data/raw", sequence_length=32, min_characters=20, held_out_fraction=0.2, held_out_sequences=8)


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the weight of a domain", "the loss of a domain"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(eos_token="<|end|>")


def make_documents(count: int, seed: int = 0) -> list[Document]:
    random = np.random.default_rng(seed)
    words = ["loss", "the domain", "weight", "ärger", "of", "<|end|>", "x = 1\n", "\t"]
    return [
        Document(f"document {seed}-{i} " + " ".join(random.choice(words, size=random.integers(5, 40))), f"d:{i}")
        for i in range(count)
    ]


def pieces(rows: np.ndarray, tokenizer) -> list[str]:
    """Return the decoded documents of a split's rows; the last one may be truncated."""
    text = rows.reshape(-1).tolist()
    out, current = [], []
    for token in text:
        if token == tokenizer.eos_token_id:
            out.append(tokenizer.decode(current, clean_up_tokenization_spaces=False))
            current = []
        else:
            current.append(token)
    return [*out, tokenizer.decode(current, clean_up_tokenization_spaces=False)]


def pack(documents, tokenizer, folder, *, name="code", data=DATA, max_tokens=None):
    return pack_domain(name, documents, tokenizer, data, max_tokens, folder)


def test_rows_reassemble_into_the_documents_of_their_split(tokenizer, tmp_path):
    documents = make_documents(200)
    everything = Data(
        path="data/raw", sequence_length=32, min_characters=20, held_out_fraction=0.2, held_out_sequences=10_000
    )
    manifest = pack(documents, tokenizer, tmp_path / "code", data=everything)
    for split, held_out in ((manifest.train, False), (manifest.held_out, True)):
        rows = load_split(tmp_path / split.file)
        expected = [d.text for d in documents if is_held_out(document_digest(d.text), 0.2) == held_out]
        found = pieces(rows, tokenizer)
        assert rows.shape == (split.sequences, 32)
        assert rows.dtype == np.uint16
        assert split.tokens == rows.size
        assert split.documents == len(expected)
        assert split.sha256 == hashlib.sha256((tmp_path / split.file).read_bytes()).hexdigest()
        assert found[:-1] == expected[: len(found) - 1]
        tokens = sum(
            len(tokenizer(t, add_special_tokens=False, split_special_tokens=True).input_ids) + 1 for t in expected
        )
        assert 0 <= tokens - rows.size < 32  # only the last tokens, fewer than a row, are dropped


def test_no_document_is_in_both_splits_within_and_across_domains(tokenizer, tmp_path):
    first, second, shared = make_documents(80), make_documents(80, seed=1), make_documents(80, seed=2)
    everything = DATA.model_copy(update={"held_out_sequences": 10_000})
    train, held_out = set(), set()
    for name, documents in {"one": first + shared, "two": shared + second}.items():
        manifest = pack(documents, tokenizer, tmp_path / name, name=name, data=everything)
        for side, split in ((train, manifest.train), (held_out, manifest.held_out)):
            side |= {" ".join(piece.split()[:2]) for piece in pieces(load_split(tmp_path / split.file), tokenizer)}
    assert len(train) > 150
    assert len(held_out) > 25
    assert not train & held_out - {"", "document"}  # a last piece may be truncated before its number


def test_duplicates_and_short_documents_are_counted_and_skipped(tokenizer, tmp_path):
    documents = make_documents(100)
    copies = [Document("  " + document.text.replace(" ", "\n") + " ", "copy") for document in documents[:30]]
    plain = pack(documents, tokenizer, tmp_path / "plain" / "code")
    noisy = pack(
        [*documents, *copies, Document("short", "s"), Document(" " * 99, "s")], tokenizer, tmp_path / "noisy" / "code"
    )
    assert (noisy.documents_read, noisy.duplicates, noisy.too_short) == (132, 30, 2)
    assert (noisy.train, noisy.held_out) == (plain.train, plain.held_out)


def test_a_second_packing_writes_the_same_bytes_over_older_files(tokenizer, tmp_path):
    first = pack(make_documents(150), tokenizer, tmp_path / "code")
    before = {path.name: path.read_bytes() for path in (tmp_path / "code").iterdir()}
    (tmp_path / "code" / "train.npy").write_bytes(b"stale")
    second = pack(make_documents(150), tokenizer, tmp_path / "code")
    assert first == second
    assert {path.name: path.read_bytes() for path in (tmp_path / "code").iterdir()} == before
    assert sorted(before) == ["held_out.npy", "train.npy"]


def test_golden_bytes(tokenizer, tmp_path):
    manifest = pack(make_documents(700), tokenizer, tmp_path / "code")
    assert manifest.train.sha256 == "9331dc2d5f9dd016c6e9dc6eee9eea0b7160dd4a75c202455f8ac0c515cbf099"
    assert manifest.held_out.sha256 == "66ffea38ab016a62584689591238204fcd207a31c65f32d17139c63cdf6c1c95"


def test_held_out_rows_are_a_sample_seeded_by_the_name(tokenizer, tmp_path):
    documents = make_documents(600)
    everything = DATA.model_copy(update={"held_out_sequences": 10_000})
    pool = load_split(tmp_path / pack(documents, tokenizer, tmp_path / "all", data=everything).held_out.file)
    samples = []
    for name in ("one", "two"):
        sampled = load_split(tmp_path / pack(documents, tokenizer, tmp_path / name, name=name).held_out.file)
        places = [int(np.flatnonzero((pool == row).all(axis=1))[0]) for row in sampled]
        assert len(places) == 8
        assert places == sorted(set(places))
        samples.append(places)
    assert samples[0] != samples[1]
    assert max(samples[0]) >= 8  # not just the first rows


def test_max_tokens_keeps_the_first_whole_rows_and_the_same_held_out_sample(tokenizer, tmp_path):
    documents = make_documents(3000)
    full = pack(documents, tokenizer, tmp_path / "full")
    capped = pack(iter(documents), tokenizer, tmp_path / "capped", max_tokens=32 * 50 + 31)
    assert capped.train.sequences == 50
    assert capped.train.documents < full.train.documents
    assert capped.held_out.sha256 == full.held_out.sha256
    assert capped.held_out.sequences == 8
    rows = load_split(tmp_path / capped.train.file)
    np.testing.assert_array_equal(rows, load_split(tmp_path / full.train.file)[:50])


def test_reading_continues_until_the_held_out_sample_is_full(tokenizer, tmp_path):
    many = DATA.model_copy(update={"held_out_sequences": 150})
    manifest = pack(make_documents(3000), tokenizer, tmp_path / "code", data=many, max_tokens=64)
    assert (manifest.train.sequences, manifest.held_out.sequences) == (2, 150)


@pytest.mark.slow
def test_a_large_vocabulary_uses_wider_integers(tmp_path):
    tokenizer = make_tokenizer(eos_token="<|end|>")
    tokenizer.add_tokens([f"<word{i}>" for i in range(70_000)])
    manifest = pack([Document(f"word {i} <word69999> " * 9, "d") for i in range(99)], tokenizer, tmp_path / "code")
    rows = load_split(tmp_path / manifest.train.file)
    assert rows.dtype == np.uint32
    assert rows.max() == len(tokenizer) - 1


@pytest.mark.parametrize(
    ("documents", "options", "problem"),
    [
        ([], {}, "domain 'code' is empty"),
        ([Document("too short", "d")], {}, r"Documents read: 1 \(duplicates: 0, under 20 characters: 1\)"),
        (make_documents(1) * 3, {}, r"Documents read: 3 \(duplicates: 2"),
        (make_documents(1), {}, r"data.held_out_fraction \(0.2\) or data.sequence_length"),
        (make_documents(99), {"max_tokens": 31}, "max_tokens 31 is under one sequence of 32"),
    ],
)
def test_too_small_domains_are_refused_and_older_files_kept(tokenizer, tmp_path, documents, options, problem):
    pack(make_documents(100), tokenizer, tmp_path / "code")
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.npy")}
    with pytest.raises(PackingError, match=problem):
        pack(documents, tokenizer, tmp_path / "code", **options)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.npy")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
    with pytest.raises(PackingError, match="no end-of-text token"):
        pack(make_documents(9), make_tokenizer(), tmp_path / "code")


def test_tokenizer_digest_ignores_truncation_and_detects_other_tokens(tokenizer, tmp_path):
    before = tokenizer_digest(tokenizer)
    pack(make_documents(100), tokenizer, tmp_path / "code")
    tokenizer(["the loss of a domain"], truncation=True, max_length=2)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert tokenizer_digest(tokenizer) == before
    assert tokenizer_digest(PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")) == before
    other = make_tokenizer(eos_token="<|end|>")
    other.add_tokens(["new"])
    assert tokenizer_digest(other) != before


def test_long_documents_are_packed_in_pieces_to_the_same_bytes(tokenizer, tmp_path, monkeypatch):
    documents = [Document(" ".join(each.text for each in make_documents(30, seed)), "d") for seed in range(12)]
    whole = pack(documents, tokenizer, tmp_path / "whole" / "code", max_tokens=4096)
    (tmp_path / "files").mkdir()
    for number, document in enumerate(documents):
        (tmp_path / "files" / f"{number:02}.txt").write_bytes(document.text.encode())
    monkeypatch.setattr("velocitune_core.data.texts.LONG_CHARACTERS", 100)
    monkeypatch.setattr("velocitune_core.data.readers.LONG_CHARACTERS", 100)
    monkeypatch.setattr("velocitune_core.data.cutting.Cutter.pieces.__defaults__", (300, 10_000))
    files = list(read_documents(Source(type="text", path="files"), tmp_path))
    assert all(isinstance(document.content, FileText) for document in files)
    killed = itertools.count()

    def cut(self, parts):
        for piece in in_pieces(self, parts):
            if next(killed) == 50:
                raise KeyboardInterrupt  # inside of a document
            yield piece

    in_pieces = Cutter.pieces
    monkeypatch.setattr("velocitune_core.data.cutting.Cutter.pieces", cut)
    for number, given in enumerate((documents, files)):  # texts in memory, and files
        folder = tmp_path / f"cut-{number}" / "code"
        packed = partial(pack_domain, "code", given, tokenizer, DATA, 4096, folder, key="k", shard_tokens=1)
        if number == 0:
            with pytest.raises(KeyboardInterrupt):
                packed()
        assert packed() == whole
        for split in ("train", "held_out"):
            assert (folder / f"{split}.npy").read_bytes() == (tmp_path / f"whole/code/{split}.npy").read_bytes()
