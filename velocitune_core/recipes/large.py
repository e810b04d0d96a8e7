"""The domains of the large mixture: documents read out of extracted packages; nothing is fetched or run."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from velocitune_core.recipes.embedded import CorpusError, Record, write_records

BLOCK_CHARACTERS = 4000  # of a metamath document; a theorem and its neighbours
RENDERED = "rendered"  # folder beside a package's own `usr`: its man pages as text
_OVERSTRIKE = re.compile(".\b")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DIGITS = {letter: value for value, letter in enumerate(_BASE64)}


@dataclass(frozen=True)
class LargeCorpus:
    """Which packages a domain is read from, and how."""

    read: Callable[[Path], Iterator[Record]]  # of one extracted package
    debian: tuple[str, ...] = ()
    npm: str | None = None  # name@version


def write_large_corpus(name: str, folders: Iterable[Path], destination: Path) -> int:
    """Write `<destination>/<name>.jsonl` from extracted packages, one {"id", "text"} per line; how many there are.

    As with the embedded domains: no empty texts, no exact duplicates, in order of the text's SHA-256, so that any
    prefix is an unbiased draw. Raises CorpusError for an unknown name and for packages without documents.
    """
    if name not in LARGE:
        raise CorpusError(f"{name}: no such large domain; there are {', '.join(LARGE)}")
    documents: dict[bytes, Record] = {}
    for folder in folders:
        before = len(documents)
        for identifier, raw in LARGE[name].read(folder):
            if text := raw.strip():
                documents.setdefault(hashlib.sha256(text.encode()).digest(), (identifier, text))
        if len(documents) == before:
            raise CorpusError(f"{folder}: no {name} documents in it; is the package laid out as in Debian 12?")
    write_records(documents, destination / f"{name}.jsonl")
    return len(documents)


def read_sphinx(folder: Path) -> Iterator[Record]:
    """The reStructuredText that a Sphinx manual was made from and carries in `_sources`; English only."""

    def wanted(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        other_language = "sagemath" in parts and "en" not in parts
        return "_sources" in parts and "translations" not in parts and not other_language

    return _texts(folder, "*.rst.txt", wanted)


def read_pod(folder: Path) -> Iterator[Record]:
    """Perl's manual in its own markup."""
    return _texts(folder, "*.pod")


def read_man(folder: Path) -> Iterator[Record]:
    """Man pages as text."""
    return _texts(folder / RENDERED, "*.txt")


def read_specs(folder: Path) -> Iterator[Record]:
    """Specifications of command lines: JavaScript without blanks, one command per file."""
    return _texts(folder, "*.js", lambda path: "build" in path.parts)


def read_metamath(folder: Path) -> Iterator[Record]:
    """Theorems with proofs out of set.mm: whole paragraphs, joined to about BLOCK_CHARACTERS.

    The other data bases repeat theorems of set.mm in other logics, nearly word for word: they would put almost the same
    text on both sides of the held-out split.
    """
    for identifier, text in _texts(folder, "set.mm"):
        for number, block in enumerate(blocks(text)):
            yield f"{identifier}#{number}", block


def read_dictionary(folder: Path) -> Iterator[Record]:
    """A dictionary in the format of dictd: one entry per document."""
    for index in sorted(folder.rglob("*.index")):
        with gzip.open(index.with_suffix(".dict.dz")) as file:
            content = file.read()
        for number, (word, start, length) in enumerate(dictionary_entries(index.read_text(encoding="utf-8"))):
            yield f"{index.stem}#{number}-{word}", decoded(content[start : start + length])


def blocks(text: str, characters: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """Paragraphs of a text, joined until a block has at least so many characters."""
    block: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        block.append(paragraph)
        if sum(map(len, block)) >= characters:
            yield "\n\n".join(block)
            block = []
    if block:
        yield "\n\n".join(block)


def dictionary_entries(index: str) -> Iterator[tuple[str, int, int]]:
    """(head word, first byte, bytes) per distinct entry of a dictd index; several words may share an entry."""
    seen = set()
    for line in index.splitlines():
        word, start, length = line.split("\t")[:3]
        if not word.startswith("00-database") and (start, length) not in seen:
            seen.add((start, length))
            yield word, _number(start), _number(length)


def plain_page(rendered: str) -> str:
    """What mandoc prints, without the overstrikes that terminals take for bold and underline."""
    return _OVERSTRIKE.sub("", rendered)


def decoded(content: bytes) -> str:
    """UTF-8, or Latin-1 where it is not."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n")


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
            yield str(path.relative_to(folder)), decoded(path.read_bytes())


def _number(digits: str) -> int:
    """A number as dictd writes it: base 64, most significant digit first."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value
