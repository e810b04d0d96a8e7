"""Figures as inline SVG for pages: each panel a small picture of its own, in colours that follow the page's scheme.

One drawing code serves README, MLflow and pages: the figure that is saved as PNG is laid out again, panel by panel.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend
from matplotlib.text import Text

from velocitune_core.style.figure import laid_out
from velocitune_core.style.for_pages import HEADING, SIDE_LABEL, SUBTITLE, side_labels_of, values_of

POINTS_PER_INCH = 72
INK_LEVEL = 0x22  # of a grey that is all ink
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_CLEANED = (  # what matplotlib writes → what a page needs
    (re.compile(r"\s*<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL), ""),
    (re.compile(r'<g id="[^"]*"'), "<g"),
    (re.compile(r"font-family: [^;\"]*;? ?|font: (?=[\d.]+px)"), ""),
    (re.compile(r' transform="rotate\(-0 [^"]*"'), ""),
    (re.compile(r"xlink:href"), "href"),
    (re.compile(r"(?<=>)\s+(?=<)"), ""),
    (re.compile(r"\s*\n\s*"), " "),
)


class Key(NamedTuple):
    """An entry of a legend: its text, with its sign as SVG or a colour."""

    text: str
    sign: str = ""
    colour: str = ""


class Panel(NamedTuple):
    """One panel, with the texts of its points as JSON: [x, y in pixels of the picture, text, colour]."""

    svg: str
    points: str
    width: float
    key: list[Key]


class Drawing(NamedTuple):
    """A figure as a page shows it; `notice` is what there is in place of a picture."""

    panels: list[Panel]
    wide: list[Panel]  # the same for screens with room, if the figure has such a size
    key: list[Key]
    subtitle: str
    notice: str = ""


def draw(figure: Figure, name: str, size: tuple[float, float], wide: tuple[float, float] | None = None) -> Drawing:
    """Return the panels of a figure, each of `size`: width and height in pixels. A single one is drawn again of `wide`.

    The figure is left as it is. `name` is unique on a page.
    """
    if not any(axes.axison for axes in figure.axes):
        return Drawing([], [], [], "", " ".join(text.get_text() for axes in figure.axes for text in axes.texts))
    copy: Figure = pickle.loads(pickle.dumps(figure))  # noqa: S301 (made here; figures have no other copy)
    key, subtitle = [each for legend in copy.legends for each in _legend(legend, name)], _subtitle(copy)
    _hide_what_the_page_writes(copy)
    axes = [each for each in copy.axes if each.get_label() != "<colorbar>"]
    panels = [_panel(copy, each, f"{name}-{i}", size, labels=False) for i, each in enumerate(axes)]
    large = [_panel(copy, axes[0], f"{name}-wide", wide, labels=True)] if wide is not None and len(axes) == 1 else []
    return Drawing(panels, large, key, subtitle)


def colours_in(html: str) -> dict[str, str]:
    """Return a definition in CSS for every colour variable that a page uses, by its name.

    Greys are mixtures of the page's ink and card. Other colours are mixed with white where the page is dark (`--dark`
    is 1 there): the darker they are, the more.
    """
    return {f"--c-{each}": _definition(each) for each in sorted(set(re.findall(r"var\(--c-([0-9a-f]{6})\)", html)))}


def colour_variable(colour: str) -> str:
    """Return the variable of a colour, #rrggbb."""
    return f"var(--c-{colour.removeprefix('#').lower()})"


def _definition(colour: str) -> str:
    red, green, blue = to_rgb(f"#{colour}")
    if red == green == blue:
        share = min(100, round(100 * (1 - red) / (1 - INK_LEVEL / 255)))
        return f"color-mix(in srgb, var(--ink) {share}%, var(--card))"
    lift = min(48, max(12, round(90 * (0.6 - (0.3 * red + 0.59 * green + 0.11 * blue)))))
    return f"color-mix(in srgb, #{colour}, white calc(var(--dark) * {lift}%))"


def _subtitle(figure: Figure) -> str:
    """Return the subtitle of a figure, and the labels of the axes that its panels share."""
    found = [
        each.get_text() for each in figure.findobj(lambda each: each.get_gid() == SUBTITLE) if isinstance(each, Text)
    ]
    shared = {"across": figure.get_supxlabel(), "up": figure.get_supylabel()}
    return "; ".join([*found, *(f"{way}: {text}" for way, text in shared.items() if text)])


def _hide_what_the_page_writes(figure: Figure) -> None:
    """Hide titles, labels that panels share, legends, and all axes."""
    supers = [getattr(figure, name) for name in ("_suptitle", "_supxlabel", "_supylabel")]
    headings = figure.findobj(lambda each: each.get_gid() in {HEADING, SUBTITLE})
    for artist in (*figure.texts, *filter(None, supers), *headings):
        _show(artist, False)
    figure.legends.clear()  # a hidden one would keep its room
    for axes in figure.axes:
        _show(axes, False)
        axes.patch.set_visible(False)
    figure.patch.set_visible(False)


def _show(artist: Artist, shown: bool) -> None:
    artist.set_visible(shown)
    artist.set_in_layout(shown)


def _panel(figure: Figure, axes: Axes, name: str, size: tuple[float, float], *, labels: bool) -> Panel:
    """Return one axes alone, laid out in `size`; without `labels` those at its side are its legend."""
    width, height = size
    figure.set_size_inches(width / POINTS_PER_INCH, height / POINTS_PER_INCH)
    axes.set_subplotspec(GridSpec(1, 1, figure=figure)[0])
    axes.tick_params(labelbottom=axes.xaxis.get_visible(), labelleft=axes.yaxis.get_visible())
    for each in axes.get_children():
        if each.get_gid() == SIDE_LABEL:
            _show(each, labels)
    _show(axes, True)
    svg = _svg(figure, name)
    points = json.dumps(_points(axes, width, height), ensure_ascii=False, separators=(",", ":"))
    key = [] if labels else [Key(text, colour=colour_variable(colour)) for text, colour in side_labels_of(axes)]
    _show(axes, False)
    return Panel(svg, points, width, key)


def _points(axes: Axes, width: float, height: float) -> list[tuple[float, float, str, str]]:
    """Return where the points of an axes with texts are in its picture; not those outside of it."""
    box, figure = axes.get_window_extent(), axes.get_figure(root=True)
    assert figure is not None
    found = []
    for point in values_of(axes):
        x, y = axes.transData.transform((point.x, point.y))
        if box.x0 - 1 <= x <= box.x1 + 1 and box.y0 - 1 <= y <= box.y1 + 1:
            across, up = x / figure.bbox.width, y / figure.bbox.height
            found.append(
                (round(across * width, 1), round((1 - up) * height, 1), point.text, colour_variable(point.colour))
            )
    return found


def _svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG for a page: no ids but those of its own parts, the page's font, colours as variables."""
    buffer = io.BytesIO()
    same_bytes = {"svg.hashsalt": name, "svg.fonttype": "none"}  # for the same figure
    with mpl.rc_context(same_bytes), laid_out(figure, FigureCanvasSVG, POINTS_PER_INCH):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, facecolor="none")
    text = buffer.getvalue().decode("utf-8")
    inside = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    for pattern, replacement in _CLEANED:
        inside = pattern.sub(replacement, inside)
    inside = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), inside)  # places to a hundredth
    inside = re.sub(r'(?<=[: ])#([0-9a-f]{6})\b(?=[;"])', lambda found: colour_variable(found[1]), inside)
    width, height = figure.get_size_inches() * POINTS_PER_INCH
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}">{inside.strip()}</svg>'


def _legend(legend: Legend, name: str) -> Iterator[Key]:
    """Yield the entries of a legend, each sign as a picture of its own."""
    for index, (handle, text) in enumerate(zip(legend.legend_handles, legend.get_texts(), strict=True)):
        figure = Figure(figsize=(26 / POINTS_PER_INCH, 14 / POINTS_PER_INCH))
        figure.legend(handles=[handle], labels=[""], loc="center", frameon=False, borderpad=0, handletextpad=0)
        yield Key(text.get_text().replace(r"\$", "$"), sign=_svg(figure, f"{name}-key{index}"))
