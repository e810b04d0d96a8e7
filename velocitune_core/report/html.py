"""Render self-contained HTML pages: figures embedded, no network, no JavaScript."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from jinja2 import Environment, FunctionLoader, StrictUndefined
from matplotlib.figure import Figure


class ReportFigure(NamedTuple):
    """A figure with its file name (no suffix), its title and a sentence on how to read it."""

    name: str
    title: str
    reading: str
    figure: Figure


def render_page(template: str, drawn: Sequence[ReportFigure], **values: object) -> str:
    """Return the HTML of a template in `templates`, with the figures embedded and `values` escaped."""

    def load(name: str) -> str:
        return resources.files("velocitune_core.report").joinpath("templates", name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [
        {"name": each.name, "title": each.title, "reading": each.reading, "source": _svg_source(each.figure)}
        for each in drawn
    ]
    return environment.get_template(template).render(figures=figures, **values)


def save_png(figure: Figure, path: Path, dots_per_inch: int = 110) -> None:
    """Write a PNG without date or version, so that the same figure gives the same file."""
    figure.savefig(path, format="png", dpi=dots_per_inch, metadata={"Software": None})


def _svg_source(figure: Figure) -> str:
    """Return the figure as a data URL; as an image, so that ids and styles of two figures cannot clash."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "velocitune", "svg.fonttype": "path"}):  # deterministic bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
