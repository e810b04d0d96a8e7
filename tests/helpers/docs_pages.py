"""The pages that a reader of the project finds, and their code blocks."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A code block, and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The code blocks of a page, without indentation."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start()) + 2
        yield Block(page, line, found[2], textwrap.dedent(found[3]))


def blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page) if block.language in languages]


def shell_blocks() -> list[Block]:
    """Blocks of commands, also those without a language."""
    starts = ("python ", "make ", "dvc ", "velocitune ")
    return blocks("bash", "console") + [block for block in blocks("") if block.text.startswith(starts)]


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block, as words."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        start = 0
        for position, word in enumerate([*words, "&&"]):
            if word in {"&&", "||", "|", ";"}:
                if command := words[start:position]:
                    yield command
                start = position + 1
