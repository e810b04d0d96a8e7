"""The readers of the large mixture, on small packages."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml

from velocitune_core.config import load_params
from velocitune_core.recipes.documents import CorpusError, decode
from velocitune_core.recipes.large import (
    LARGE,
    blocks,
    dictionary_entries,
    plain_page,
    read_dictionary,
    read_man,
    read_metamath,
    read_pod,
    read_specs,
    read_sphinx,
    write_large_corpus,
)

PARAMS = Path(__file__).parents[3] / "large/params.yaml"


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_sphinx_sources_in_english_only(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/doc/k/html/_sources/mm/slab.rst.txt", "Slab\n====")
    put(tmp_path, "usr/share/doc/k/html/_sources/translations/it_IT/a.rst.txt", "Ciao")
    put(tmp_path, "usr/share/doc/sagemath/html/en/tutorial/_sources/a.rst.txt", "Tutorial")
    put(tmp_path, "usr/share/doc/sagemath/html/de/tutorial/_sources/a.rst.txt", "Einführung")
    put(tmp_path, "usr/share/doc/k/html/other.rst.txt", "not a source")
    (tmp_path / "usr/share/doc/k/html/_sources/nowhere.rst.txt").symlink_to("missing")
    assert {text for _, text in read_sphinx(tmp_path)} == {"Slab\n====", "Tutorial"}


def test_other_text_files(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/perl/pod/perlre.pod", "=head1 NAME")
    put(tmp_path, "rendered/ls.1.txt", "LS(1)")
    put(tmp_path, "usr/share/doc/x.txt", "no man page")
    put(tmp_path, "package/build/tar.js", "var c=[]")
    put(tmp_path, "package/other.js", "no specification")
    assert list(read_pod(tmp_path)) == [("usr/share/perl/pod/perlre.pod", "=head1 NAME")]
    assert list(read_man(tmp_path)) == [("ls.1.txt", "LS(1)")]
    assert list(read_specs(tmp_path)) == [("package/build/tar.js", "var c=[]")]


def test_metamath_is_cut_between_paragraphs_of_its_main_database(tmp_path: Path) -> None:
    paragraph = "a1 $p |- ph $= ( ) $. " * 100
    put(tmp_path, "set.mm", "\n\n".join([paragraph] * 4))
    put(tmp_path, "iset.mm", "the same theorems once more")
    records = list(read_metamath(tmp_path))
    assert [identifier for identifier, _ in records] == ["set.mm#0", "set.mm#1"]
    assert "\n\n".join(text for _, text in records) == "\n\n".join([paragraph] * 4)


def test_blocks_contain_all_paragraphs() -> None:
    assert list(blocks("a\n\nbb\n\nccc\n\nd", 3)) == ["a\n\nbb", "ccc", "d"]


def test_dictionary_entries_by_hand(tmp_path: Path) -> None:
    # BK is 1 * 64 + 10 = 74; A is 0, F is 5
    assert list(dictionary_entries("00-database-info\tA\tF\nab\tBK\tF\nabs\tBK\tF\n")) == [("ab", 74, 5)]
    (tmp_path / "d.index").write_text("one\tA\tE\ntwo\tE\tG\n", encoding="utf-8")  # bytes 0-4 and 4-10
    with gzip.open(tmp_path / "d.dict.dz", "wb") as file:
        file.write("ein\nzwöi\n".encode())
    assert list(read_dictionary(tmp_path)) == [("d#0-one", "ein\n"), ("d#1-two", "zwöi\n")]


def test_overstrikes_and_old_encodings() -> None:
    assert plain_page("N\bNA\bAM\bME\bE _\bf_\bi") == "NAME fi"
    assert decode("é\r\n".encode()) == "é\n"
    assert decode("é".encode("latin-1"), "latin-1") == "é"
    with pytest.raises(UnicodeDecodeError):
        decode("é".encode("latin-1"))


def test_written_documents_are_distinct_and_in_order_of_their_hashes(tmp_path: Path) -> None:
    for name, text in {"a": "same", "b": " same\n", "c": "other", "d": " "}.items():
        put(tmp_path, f"package/{name}.pod", text)
    assert write_large_corpus("perl", [tmp_path / "package"], tmp_path) == 2
    rows = [json.loads(line) for line in (tmp_path / "perl.jsonl").read_text().splitlines()]
    assert rows == [{"id": "a.pod", "text": "same"}, {"id": "c.pod", "text": "other"}]


def test_an_empty_package_and_an_unknown_domain_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no perl documents"):
        write_large_corpus("perl", [tmp_path], tmp_path)
    with pytest.raises(CorpusError, match="poems"):
        write_large_corpus("poems", [tmp_path], tmp_path)


def test_the_settings_name_every_domain_and_the_intended_numbers_of_steps() -> None:
    params = load_params(PARAMS)
    assert set(params.domains) == {*LARGE, "general"}
    assert params.compare is not None and params.compare.seeds == [1, 2, 3]
    assert params.compare.retained == ["general"] and not params.compare.downstream
    tokens = params.training.batch_sequences * params.data.sequence_length
    assert params.training.token_budget == 500 * tokens
    assert [round(500 * fraction) for fraction in params.proxies.fractions] == [40, 60, 100, 300]


def test_the_settings_contain_every_key_that_dvc_watches() -> None:
    written = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for file in ("dvc.yaml", "comparison/dvc.yaml"):
        pipeline = PARAMS.parents[1] / file
        for stage in yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"].values():
            for key in stage.get("params", []):
                tree = written
                for part in key.split("."):
                    assert part in tree, key
                    tree = tree[part]
