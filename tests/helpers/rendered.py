"""What a reader sees of a figure or an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import IO

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


def words(figure: Figure) -> str:
    """Return all visible text of a figure, with the labels of its ticks, wherever they are."""
    engine = figure.get_layout_engine()
    figure.set_layout_engine(None)
    figure.draw_without_rendering()
    figure.set_layout_engine(engine)
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


@contextmanager
def without_drawing() -> Iterator[None]:
    """Let figures be saved as empty pictures, where the test is not of them: those of a page take five seconds."""

    def save(self: Figure, to: IO[bytes] | Path, **_: object) -> None:
        if isinstance(to, Path):
            to.touch()
        else:
            to.write(b"<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


class Page(HTMLParser):
    """The tags, attributes, loaded addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.loads += [value or "" for name, value in attributes if name in {"src", "href", "srcset", "data", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data
