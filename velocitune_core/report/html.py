"""Render self-contained HTML pages: figures inline, no network; a script shows the values of their points."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # which a page without figures must not need

Size = tuple[float, float]  # of one panel, pixels across and down


class ShadedCell(NamedTuple):
    """A cell of a table that stands for a figure of shades."""

    text: str
    share: float  # of the strongest shade, −1 to 1; negative is better
    title: str = ""
    clear: bool = False  # its interval excludes zero


class ShadedRow(NamedTuple):
    """A row of such a table; all rows have the same columns."""

    name: str
    columns: Sequence[str]
    cells: Sequence[ShadedCell]


class ReportFigure(NamedTuple):
    """A figure with its file name (no suffix), its title and a sentence on how to read it; the rest is for pages."""

    name: str
    title: str
    reading: str
    figure: Figure
    size: Size = (420, 310)
    layout: Literal["small", "half"] = "half"  # how many panels stand beside each other
    wide: Size | None = (960, 400)  # of a single panel on screens with room
    shades: Sequence[ShadedRow] = ()  # in place of the picture


def render_page(template: str, drawn: Sequence[ReportFigure], **values: object) -> str:
    """Return the HTML of a template in `templates`, with the figures inline and `values` escaped.

    The template has `figures`, by name.
    """
    figures = {each.name: _shown(each) for each in drawn}
    html = _environment().get_template(template).render(figures=figures, **values)
    if not drawn:
        return html
    from velocitune_core.report.inline_svg import colours_in

    colours = "".join(f"{name}: {value}; " for name, value in colours_in(html).items())
    return html.replace("</style>", f":root {{ {colours}}}\n</style>", 1) if colours else html


def save_png(figure: Figure, path: Path, dots_per_inch: int = 110) -> None:
    """Write a PNG without date or version, so that the same figure gives the same file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from velocitune_core.style.figure import laid_out

    with laid_out(figure, FigureCanvasAgg, dots_per_inch):
        figure.savefig(path, format="png", dpi=dots_per_inch, metadata={"Software": None})


@cache
def _environment() -> Environment:
    """Return what holds the templates once they are compiled, which takes as long as drawing a figure."""

    def load(name: str) -> str:
        return resources.files("velocitune_core.report").joinpath("templates", name).read_text(encoding="utf-8")

    return Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _shown(each: ReportFigure) -> dict[str, Any]:
    from velocitune_core.report.inline_svg import draw

    drawing = draw(each.figure, each.name, each.size, each.wide) if not each.shades else None
    return {**each._asdict(), "drawing": drawing or {"notice": ""}}
