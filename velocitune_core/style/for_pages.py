"""What a figure keeps for pages, and no picture shows: texts of points, and labels for which a panel has no room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_hex

HEADING = "heading"  # gid of a title that a page writes itself
SUBTITLE = "subtitle"
SIDE_LABEL = "side label"  # gid of what stands right of the axes: a small panel has a legend in its place


class HoverPoint(NamedTuple):
    """A point in data coordinates, the text of its value, and the colour of what it belongs to."""

    x: float
    y: float
    text: str
    colour: str


class SideLabel(NamedTuple):
    """A label right of the axes, as an entry of a legend."""

    text: str
    colour: str


class _Kept(Artist):
    """Draws nothing, and is in no layout."""

    def __init__(self, kept: Sequence[HoverPoint | SideLabel]) -> None:
        super().__init__()
        self.kept = list(kept)
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Draw nothing."""


def add_values(axes: Axes, xs: Iterable[float], ys: Iterable[float], texts: Iterable[str], colour: str) -> None:
    """Give points of an axes, in data coordinates, the texts that a page shows when the pointer is near."""
    hexadecimal = to_hex(colour)
    axes.add_artist(
        _Kept([HoverPoint(float(x), float(y), text, hexadecimal) for x, y, text in zip(xs, ys, texts, strict=True)])
    )


def add_side_labels(axes: Axes, labels: Sequence[SideLabel]) -> None:
    """Give an axes the labels at its right side as entries of a legend, from top to bottom."""
    axes.add_artist(_Kept([SideLabel(text, to_hex(colour)) for text, colour in labels]))


def values_of(axes: Axes) -> list[HoverPoint]:
    """Return the points that have texts, in the order of drawing."""
    return [each for each in _kept(axes) if isinstance(each, HoverPoint)]


def side_labels_of(axes: Axes) -> list[SideLabel]:
    """Return the labels at the right side, from top to bottom."""
    return [each for each in _kept(axes) if isinstance(each, SideLabel)]


def _kept(axes: Axes) -> list[HoverPoint | SideLabel]:
    return [each for artist in axes.get_children() if isinstance(artist, _Kept) for each in artist.kept]
