"""Rendering of pages: escaped values, embedded figures, and the same bytes for the same figure."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure
from rendered import Page

from velocitune_core.report.html import ReportFigure, render_page, save_png


def drawn() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2], [3, 4], label="$line$")
    return figure


def report_figure(title: str = "Loss") -> ReportFigure:
    return ReportFigure("loss", title, "Lower is better.", drawn())


TABLES = ("results", "costs", "planned", "prices", "mixtures", "by_domain", "raw")


def nothing() -> dict[str, object]:
    """What the page of a comparison may be without."""
    names = ("frontier", "seeds", "retained", "learnt", "gains", "downstream", "measured", "plans")
    return {name: [] for name in names} | {"laws": False, "blocks": {}}


def test_templates_get_figures_as_data_urls() -> None:
    page = render_page("page.html.jinja", [report_figure()])
    assert Page(page).tags.count("img") == 0  # the base page shows none
    values = nothing() | {name: [{"strategy": "static"}] for name in TABLES}
    html = render_page(
        "comparison.html.jinja", [report_figure()], outcome="", baseline="static", outside="", meanings={}, **values
    )
    (source,) = Page(html).loads
    kind, _, content = source.partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content).startswith(b"<?xml")
    assert 'alt="Loss"' in html and "Lower is better." in html


def test_values_are_escaped() -> None:
    attack = "<script>alert(1)</script>"
    rows = {name: [{"strategy": attack}] for name in TABLES}
    html = render_page(
        "comparison.html.jinja",
        [report_figure(title=f'" onload="{attack}')],
        outcome=attack,
        baseline=attack,
        outside="",
        meanings={attack: attack},
        **nothing(),
        **rows,
    )
    page = Page(html)
    assert "script" not in page.tags
    assert "onload" not in page.attributes
    assert page.text.count(attack) == 11  # outcome, baseline, two of a meaning, seven tables


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="outcome"):
        render_page("comparison.html.jinja", [], baseline="static")


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = [render_page("page.html.jinja", [report_figure()]) for _ in range(2)]
    assert pages[0] == pages[1]
    for name in ("one.png", "two.png"):
        save_png(drawn(), tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two
    assert b"Software" not in one
