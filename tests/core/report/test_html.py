"""Rendering of pages: escaped values, inline figures, and the same bytes for the same figure."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import pytest
from jinja2 import UndefinedError
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from rendered import Page

from velocitune_core.report.html import ReportFigure, render_page, save_png
from velocitune_core.report.inline_svg import colours_in, draw
from velocitune_core.style.figure import label_right, laid_out, new_figure
from velocitune_core.style.for_pages import add_values


def drawn() -> Figure:
    figure, axes = new_figure(3, "Loss", "nats")
    axes.plot([1, 2], [3.0, 4.0], color="#332288", label="$line$")
    add_values(axes, [1, 2], [3.0, 4.0], ["3.0 <nats>", "4.0 nats"], "#332288")
    label_right(axes, [(4.0, "line", "#332288")], gap=0.1)
    figure.legend(loc="outside lower left")
    return figure


def report_figure(title: str = "Loss") -> ReportFigure:
    return ReportFigure("loss", title, "Lower is better.", drawn(), wide=(800, 300))


TABLES = ("results", "costs", "planned", "prices", "mixtures", "by_domain", "raw")


def nothing() -> dict[str, object]:
    """What the page of a comparison may be without."""
    names = ("frontier", "seeds", "retained", "learnt", "gains", "downstream", "measured", "plans", "tiles")
    return {name: [] for name in names} | {"laws": False, "blocks": {}, "trainers": {}, "answer": ""}


def page_with(figure: ReportFigure) -> str:
    values = nothing() | {name: [{"strategy": "static"}] for name in TABLES}
    figure = figure._replace(name="frontier_planes")
    return render_page(
        "comparison.html.jinja", [figure], outcome="", baseline="static", outside="", meanings={}, **values
    )


def test_a_page_has_figures_inline_in_its_own_colours_and_font() -> None:
    html = page_with(report_figure())
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(pictures) == 3  # narrow, wide, and the sign of the legend
    text = "".join(pictures)
    assert not re.search(r"#[0-9a-f]{6}\b|font-family|<style|<metadata| id=\"(figure|axes)", text)
    used = set(re.findall(r"var\((--c-[0-9a-f]{6})\)", html))
    assert "--c-332288" in used and all(f"{name}: color-mix(" in html for name in used)
    assert "Lower is better." in html and ">nats<" in html


@pytest.mark.parametrize(("canvas", "kind", "dots"), [(FigureCanvasSVG, "svg", 72), (FigureCanvasAgg, "png", 110)])
def test_a_figure_that_is_laid_out_first_is_drawn_once_and_saved_as_it_always_was(
    canvas: type[FigureCanvasBase], kind: str, dots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings: list[Axes] = []
    draw_axes = Axes.draw
    monkeypatch.setattr(Axes, "draw", lambda axes, renderer: (drawings.append(axes), draw_axes(axes, renderer)))
    metadata = {"Date": None} if kind == "svg" else {}

    def saved(figure: Figure) -> bytes:
        with mpl.rc_context({"svg.hashsalt": "x"}):
            figure.savefig(file := io.BytesIO(), format=kind, dpi=dots, metadata=metadata)
        return file.getvalue()

    alone, figure = saved(drawn()), drawn()
    before = figure.get_layout_engine(), figure.canvas, figure.dpi
    with laid_out(figure, canvas, dots):
        assert saved(figure) == alone
    assert [each.get_figure() is figure for each in drawings] == [False, False, True]
    assert (figure.get_layout_engine(), figure.canvas, figure.dpi) == before


def test_greys_are_of_the_page_and_dark_colours_are_lifted_where_it_is_dark() -> None:
    found = colours_in("var(--c-222222) var(--c-ffffff) var(--c-332288) var(--c-e69f00)")
    assert found["--c-222222"] == "color-mix(in srgb, var(--ink) 100%, var(--card))"
    assert found["--c-ffffff"] == "color-mix(in srgb, var(--ink) 0%, var(--card))"
    lifts = {name: int(found[name].rpartition("* ")[2].removesuffix("%))")) for name in ("--c-332288", "--c-e69f00")}
    assert lifts["--c-332288"] > lifts["--c-e69f00"] >= 12


def test_a_panel_keeps_the_texts_of_its_points_where_they_are_drawn() -> None:
    figure = drawn()
    before = figure.get_size_inches().tolist()
    drawing = draw(figure, "loss", (400, 300), (800, 300))
    assert figure.get_size_inches().tolist() == before and figure.axes[0].get_visible()  # for the PNG
    for panel in (*drawing.panels, *drawing.wide):
        points = json.loads(panel.points)
        assert [each[2] for each in points] == ["3.0 <nats>", "4.0 nats"]
        ends = re.search(r'd="M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+) ?"[^>]*stroke: var\(--c-332288\)', panel.svg)
        assert ends is not None
        assert [*points[0][:2], *points[1][:2]] == pytest.approx([float(each) for each in ends.groups()], abs=0.06)
    assert [each.text for each in drawing.panels[0].key] == ["line"]  # a small panel has no room beside it
    assert ">line<" in drawing.wide[0].svg and ">line<" not in drawing.panels[0].svg
    assert [each.text for each in drawing.key] == ["$line$"]


def test_values_are_escaped() -> None:
    attack = "<script>alert(1)</script>"
    rows = {name: [{"strategy": attack}] for name in TABLES}
    html = render_page(
        "comparison.html.jinja",
        [report_figure(title=f'" onload="{attack}')._replace(name="frontier_planes")],
        outcome=attack,
        baseline=attack,
        outside="",
        meanings={attack: attack},
        **nothing(),
        **rows,
    )
    page = Page(html)
    assert page.tags.count("script") == 1  # the page's own
    assert "onload" not in page.attributes
    assert page.text.count(attack) == 12  # outcome, baseline, two of a meaning, seven tables, title of the figure


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="answer"):
        render_page("comparison.html.jinja", [], baseline="static")


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = [page_with(report_figure()) for _ in range(2)]
    assert pages[0] == pages[1]
    for name in ("one.png", "two.png"):
        save_png(drawn(), tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two
    assert b"Software" not in one
