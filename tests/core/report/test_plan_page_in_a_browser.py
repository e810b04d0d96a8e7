"""The page of a plan in a real browser: what is typed, what is printed, and names of mixtures that can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from test_compared_plans import plan

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

TYPE = """((field, ...texts) => {
  const type = (kind) => field.dispatchEvent(new Event(kind, { bubbles: true }));
  for (const text of texts) { field.value = text; type("input"); }
  type("change");
  return [...document.querySelectorAll("[data-share]")].map((each) => each.value);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path: Path = tmp_path_factory.mktemp("plan") / "plan.html"
    others = {"beside recommended": plan().plan.weights, "a": {"code": 0.5, "general": 0.3, "papers": 0.2}}
    path.write_text(plan().page(others), encoding="utf-8")
    with browser() as started:
        started.show(1400)
        started.open(path)
        yield started


@pytest.mark.parametrize(("typed", "shown"), [("250", "100.0"), ("-5", "0.0"), ("", "0.0"), ("30.04", "30.0")])
def test_a_field_of_a_weight_shows_what_is_used_of_it(page: Browser, typed: str, shown: str) -> None:
    page.run("show([0.5, 0.3, 0.2])")
    first, *others = page.run(f"{TYPE}(document.querySelector('#sliders [data-share]'), '{typed}')")
    assert first == shown
    assert float(first) + sum(map(float, others)) == pytest.approx(100, abs=0.11)


def test_what_a_field_passes_while_it_is_typed_leaves_the_proportions_of_the_others(page: Browser) -> None:
    page.run("show([0.5, 0.3, 0.2])")
    assert page.run(f"{TYPE}(document.querySelector('#sliders [data-share]'), '250', '25')") == ["25.0", "45.0", "30.0"]


def test_a_limit_shows_what_is_used_of_it(page: Browser) -> None:
    share = """document.querySelector('[aria-label="weight of every domain at most"]')"""
    for typed, shown in (("30", "1"), ("-1", "0"), ("0.4", "0.4"), ("", "")):
        page.run(f"{TYPE}({share}, '{typed}')")
        assert page.run(f"{share}.value") == shown


def test_no_name_of_a_mixture_lies_on_a_line_or_on_another_name(page: Browser) -> None:
    page.run("show(mixture.recommended)")
    crossed = page.run("""[...document.querySelectorAll(".curves svg")].flatMap((svg) => {
      const texts = [...svg.querySelectorAll("text:not(.tick)")];
      const names = texts.map((each) => ({ text: each.textContent, box: each.getBBox() }));
      const inside = ({ x, y, width, height }, point) =>
        point.x > x && point.x < x + width && point.y > y + 2 && point.y < y + height - 2;
      const lines = [...svg.querySelectorAll(".frontier, .zero")].flatMap((each) =>
        Array.from({ length: 400 }, (_, i) => each.getPointAtLength((each.getTotalLength() * i) / 399)));
      const corners = ({ x, y, width, height }) => [{ x: x + 1, y: y + 4 }, { x: x + width - 1, y: y + height - 4 }];
      return names.filter(({ text, box }) => lines.some((point) => inside(box, point)) ||
        names.some((other) => other.text !== text && corners(other.box).some((point) => inside(box, point))))
        .map(({ text }) => text);
    })""")
    assert crossed == []


def test_print_names_the_runs_and_keeps_blocks_and_headings_together(page: Browser) -> None:
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        names = page.run("[...document.querySelectorAll('#runs tbody th')].map((each) => each.innerText.trim())")
        assert len(names) == 6 and all(names)
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert page.run(style.format(".take pre", "columnWidth")) == "auto"
        assert page.run(style.format(".take pre", "breakInside")) == "avoid"
        assert page.run(style.format(".legend", "breakAfter")) == page.run(style.format("h2", "breakAfter")) == "avoid"
        assert page.run(style.format(".legend", "breakInside")) == "avoid"
        controls = "[...document.querySelectorAll('select, input[type=range]')]"
        assert page.run(f"{controls}.every((each) => !each.offsetWidth)")
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_a_weight_at_the_end_of_its_range_is_at_the_edge_of_the_runs_as_the_sentences_say(page: Browser) -> None:
    chip = "document.querySelector('#readout .chips').innerText"
    page.run("show(PLAN.support.centre)")
    assert "well inside the runs" in page.run(chip)
    page.run("show(moved(PLAN.support.centre, state.locked, 0, PLAN.support.low[0]))")
    first = page.run("DOMAINS[0]")
    assert f"at the edge of the runs: weight of {first} (distance" in page.run(chip)
    assert "well inside" not in page.run(chip)
