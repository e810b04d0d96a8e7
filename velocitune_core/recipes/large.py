"""The domains of the large mixture: documents read from extracted packages. Nothing is downloaded or executed."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from velocitune_core.recipes.documents import CorpusError, Documents, Record, add_distinct, decode, write_documents

BLOCK_CHARACTERS = 4000  # minimum of a metamath document: a few theorems
RENDERED = "rendered"  # folder of a package's man pages as text, beside its own `usr`
_FALLBACK = "latin-1"  # of packages with older files
_OVERSTRIKE = re.compile(".\b")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DIGITS = {letter: value for value, letter in enumerate(_BASE64)}


@dataclass(frozen=True)
class LargeCorpus:
    """The packages of a domain, and the reader of their documents."""

    read: Callable[[Path], Iterator[Record]]  # of one extracted package
    debian: tuple[str, ...] = ()
    npm: str | None = None  # name@version


def write_large_corpus(name: str, folders: Iterable[Path], destination: Path) -> int:
    """Write the documents of extracted packages to `<destination>/<name>.jsonl`, and return their number.

    The format is that of the embedded domains (`write_corpus`). Raises CorpusError for an unknown name, and for a
    package without documents.
    """
    if name not in LARGE:
        raise CorpusError(f"{name}: no such large domain; there are {', '.join(LARGE)}")
    documents: Documents = {}
    for folder in folders:
        if not add_distinct(documents, LARGE[name].read(folder)):
            raise CorpusError(f"{folder}: no {name} documents in it; is the package laid out as in Debian 12?")
    write_documents(documents, destination / f"{name}.jsonl")
    return len(documents)


def read_sphinx(folder: Path) -> Iterator[Record]:
    """Read the reStructuredText sources of a Sphinx manual, in its folders `_sources`; English only."""

    def wanted(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        other_language = "sagemath" in parts and "en" not in parts
        return "_sources" in parts and "translations" not in parts and not other_language

    return _texts(folder, "*.rst.txt", wanted)


def read_pod(folder: Path) -> Iterator[Record]:
    """Read Perl's manual in its own markup, POD."""
    return _texts(folder, "*.pod")


def read_man(folder: Path) -> Iterator[Record]:
    """Read man pages, rendered to text."""
    return _texts(folder / RENDERED, "*.txt")


def read_specs(folder: Path) -> Iterator[Record]:
    """Read specifications of command lines: minified JavaScript, one command per file."""
    return _texts(folder, "*.js", lambda path: "build" in path.parts)


def read_metamath(folder: Path) -> Iterator[Record]:
    """Read theorems with proofs from set.mm: whole paragraphs, joined to about BLOCK_CHARACTERS.

    The other databases are left out: they repeat theorems of set.mm in other logics, nearly word for word, so almost
    the same text would be in both splits.
    """
    for identifier, text in _texts(folder, "set.mm"):
        for number, block in enumerate(blocks(text)):
            yield f"{identifier}#{number}", block


def read_dictionary(folder: Path) -> Iterator[Record]:
    """Read a dictionary in the format of dictd, one entry per document."""
    for index in sorted(folder.rglob("*.index")):
        with gzip.open(index.with_suffix(".dict.dz")) as file:
            content = file.read()
        for number, (word, start, length) in enumerate(dictionary_entries(index.read_text(encoding="utf-8"))):
            yield f"{index.stem}#{number}-{word}", decode(content[start : start + length], _FALLBACK)


def blocks(text: str, characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """Yield the paragraphs of a text, joined into blocks of at least `characters`; the last may be shorter."""
    block: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        block.append(paragraph)
        if sum(map(len, block)) >= characters:
            yield "\n\n".join(block)
            block = []
    if block:
        yield "\n\n".join(block)


def dictionary_entries(index: str) -> Iterator[tuple[str, int, int]]:
    """Yield (head word, first byte, bytes) of each distinct entry of a dictd index; words may share an entry."""
    seen = set()
    for line in index.splitlines():
        word, start, length = line.split("\t")[:3]
        if not word.startswith("00-database") and (start, length) not in seen:
            seen.add((start, length))
            yield word, _number(start), _number(length)


def plain_page(rendered: str) -> str:
    """Remove the overstrikes that mandoc prints for bold and underlined text."""
    return _OVERSTRIKE.sub("", rendered)


LARGE: Mapping[str, LargeCorpus] = {
    "kernel": LargeCorpus(read_sphinx, ("linux-doc-6.1",)),
    "metamath": LargeCorpus(read_metamath, ("metamath-databases",)),
    "dictionary": LargeCorpus(read_dictionary, ("dict-gcide",)),
    "specs": LargeCorpus(read_specs, npm="@withfig/autocomplete@2.692.3"),
    "python": LargeCorpus(read_sphinx, ("python3.11-doc",)),
    "perl": LargeCorpus(read_pod, ("perl-doc",)),
    "man": LargeCorpus(read_man, ("manpages", "manpages-dev", "coreutils", "git-man", "openssl")),
    "mathematics": LargeCorpus(read_sphinx, ("sagemath-doc",)),
}


def _texts(folder: Path, pattern: str, wanted: Callable[[Path], bool] = lambda _: True) -> Iterator[Record]:
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and not path.is_symlink() and wanted(path):
            yield str(path.relative_to(folder)), decode(path.read_bytes(), _FALLBACK)


def _number(digits: str) -> int:
    """Parse a number of a dictd index: base 64, most significant digit first."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value
