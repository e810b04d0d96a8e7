"""The ids are those of tokenizer.json, whatever class a configuration implies, and the files go with the result."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import tokenizers
from architectures import shape_of
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.model.folder import ModelError, check_model_folder, has_tokenizer
from velocitune_core.model.io import load_model, save_model
from velocitune_core.model.tokenizer import _warn_once, load_tokenizer
from velocitune_core.model.tokenizer_files import write_tokenizer
from velocitune_core.model.tokenizer_probe import PROBE, ids_of

TEXT = "Two  blanks,\n\n    and 2 lines 漢字 🙂"


@pytest.fixture(scope="module")
def metaspace() -> tokenizers.Tokenizer:
    """A BPE of SentencePiece's kind: blanks become ▁, unknown characters bytes."""
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator([PROBE], trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    return made


@pytest.fixture(scope="module")
def bytelevel() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [PROBE],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def folder_of(name: str, tokenizer: tokenizers.Tokenizer, end: str, folder: Path) -> Path:
    """A folder with a configuration of that model beside a tokenizer that its class would not make."""
    shape_of(name).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))
    return folder


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gpt2", "gpt_neox", "opt", "cohere", "phi", "llama", "mistral"])
def test_blanks_and_lines_are_not_lost_by_the_class_of_a_configuration(
    name: str, metaspace: tokenizers.Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of(name, metaspace, "</s>", tmp_path)
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        loaded = load_tokenizer(str(folder))
        load_tokenizer(str(folder))
    assert loaded(TEXT, add_special_tokens=False)["input_ids"] == ids_of(metaspace, TEXT)
    assert loaded.decode(loaded(TEXT, add_special_tokens=False)["input_ids"]) == TEXT
    rebuilt = AutoTokenizer.from_pretrained(folder)
    lost = rebuilt(PROBE, add_special_tokens=False)["input_ids"] != ids_of(metaspace)
    warned = [each for each in caplog.messages if "PreTrainedTokenizerFast.from_pretrained" in each]
    assert len(warned) == lost, "warned of once, if there is a reason"
    assert lost or name in ("llama", "mistral")


def test_a_class_that_wants_another_vocabulary_does_not_matter(bytelevel: tokenizers.Tokenizer, tmp_path: Path) -> None:
    """Gemma's class looks for `<unk>`, and this vocabulary has none."""
    folder = folder_of("gemma2", bytelevel, "<|endoftext|>", tmp_path)
    with pytest.raises(Exception, match="unk"):
        AutoTokenizer.from_pretrained(folder)(TEXT)
    loaded = load_tokenizer(str(folder))
    assert loaded(TEXT, add_special_tokens=False)["input_ids"] == ids_of(bytelevel, TEXT)


def test_a_tokenizer_that_cannot_encode_every_text_is_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], None, False))
    with pytest.raises(ModelError, match=r"cannot encode every text: .*; give it an unknown token"):
        load_tokenizer(str(folder_of("llama", made, "a", tmp_path)))


def test_sentencepiece_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    shape_of("llama").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(ModelError, match=r"a SentencePiece model alone \(tokenizer\.model\).*save_pretrained"):
        load_tokenizer(str(tmp_path))


def test_a_file_that_is_no_tokenizer_is_named(tiny_inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_inputs / "model", tmp_path / "model")
    (tmp_path / "model/tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is no tokenizer: .*; download it again"):
        load_tokenizer(str(tmp_path / "model"))


def test_the_result_has_the_files_of_the_tokenizer_byte_for_byte(
    tiny_inputs: Path, metaspace: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    folder = folder_of("qwen2", metaspace, "</s>", tmp_path / "source")
    (folder / "chat_template.jinja").write_text("{{ messages }}\n")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text + "\n\n")  # no serialisation would give that
    save_model(load_model(str(tiny_inputs / "model")), str(folder), tmp_path / "saved")
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    assert all((tmp_path / "saved" / name).read_bytes() == (folder / name).read_bytes() for name in names)
    digests = {tokenizer_digest(load_tokenizer(str(each))) for each in (folder, tmp_path / "saved")}
    assert len(digests) == 1


def test_vocabulary_and_merges_alone_are_a_tokenizer(bytelevel: tokenizers.Tokenizer, tmp_path: Path) -> None:
    source, saved = tmp_path / "source", tmp_path / "saved"
    shape_of("gpt2", bos_token_id=0, eos_token_id=0).save_pretrained(source)
    bytelevel.model.save(str(source))
    assert sorted(each.name for each in source.iterdir()) == ["config.json", "merges.txt", "vocab.json"]
    assert has_tokenizer(str(source))
    assert not [problem for problem in check_model_folder(str(source)) if "tokenizer" in problem]
    loaded = load_tokenizer(str(source))
    assert loaded(TEXT, add_special_tokens=False)["input_ids"] == ids_of(bytelevel, TEXT)
    saved.mkdir()
    write_tokenizer(str(source), saved)
    assert (saved / "merges.txt").read_bytes() == (source / "merges.txt").read_bytes()
    assert load_tokenizer(str(saved))(TEXT)["input_ids"] == loaded(TEXT)["input_ids"]
