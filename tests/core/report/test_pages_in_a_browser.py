"""The pages in a real browser: nothing cut at any width, values on hover, no request, dark, printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import planned_samples
import pytest
import result_samples
from browser import CHROMIUM, Browser, browser, pages_of
from comparison_samples import comparison, losses, run
from test_compared_plans import plan, planned_runs

from velocitune_core.report.comparison_page import render_comparison
from velocitune_core.report.figures.training import StepPoint
from velocitune_core.report.run_facts import RunFacts
from velocitune_core.report.run_page import render_report, report_figures

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
PAGES = ("report", "planned", "comparison", "plan")
WIDTHS = (1400, 820, 390)
STEPS = [StepPoint(tokens, 4.0 - tokens / 1e6, 1e-3) for tokens in range(0, 1_500_000, 100_000)]

# Elements that reach out of the window, and texts of pictures that reach out of their figure. What can be scrolled may.
CUT = """(() => {
  document.querySelectorAll("details").forEach((each) => (each.open = true));
  const width = document.documentElement.clientWidth;
  const name = (each) => `${each.tagName} ${each.textContent.slice(0, 40)}`;
  const out = (each) => each.getBoundingClientRect().right > width + 1 && !each.closest(".wide, pre");
  const wide = [...document.querySelectorAll("body *")].filter(out);
  const texts = [...document.querySelectorAll("figure text")].filter((each) => {
    const box = each.getBoundingClientRect(), around = each.closest("figure").getBoundingClientRect();
    return box.width && (box.left < around.left - 1 || box.right > around.right + 1 || box.bottom > around.bottom + 1);
  });
  const first = [...document.querySelectorAll(".wide th:first-child")];
  const still = first.filter((each) => getComputedStyle(each).position !== "sticky");
  return [document.documentElement.scrollWidth, ...[...wide, ...texts, ...still].map(name)];
})()"""

PAPER = 695  # pixels of A4 between its margins
BESIDE_THE_PAPER = """[...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((each) => `${each.tagName} ${each.textContent.slice(0, 40)}`)"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, Path]]:
    folder = tmp_path_factory.mktemp("pages")
    facts = RunFacts(model="models/base", started=1.7e9, finished=1.7e9 + 60, commit="abc", seed=4, steps=STEPS)
    data = result_samples.report_data(config="key: value\n" * 300)  # as long as a real one
    page = render_report(data, report_figures(data, None, facts), facts)
    (folder / "report.html").write_text(page, encoding="utf-8")
    static = {name: row[0] for name, row in result_samples.SEVEN.items()}
    of_plan = result_samples.report_data(weights=planned_samples.planned(static))
    fitted = planned_samples.fitted(static, averages_worse_than_static={"by_size": 0.05})
    figures = report_figures(of_plan, fitted, facts)
    (folder / "planned.html").write_text(render_report(of_plan, figures, facts), encoding="utf-8")
    compared = render_comparison(planned_runs(), None, {"planned": plan()})
    (folder / "comparison.html").write_text(compared, encoding="utf-8")
    two = [run(label, seed, losses(3.0, 4.2, 5.4)) for label in ("static", "odm") for seed in (1, 2)]
    (folder / "pair.html").write_text(render_comparison(comparison(*two)), encoding="utf-8")  # lines that end alike
    (folder / "plan.html").write_text(plan().page(), encoding="utf-8")
    with browser() as started:
        yield started, folder


# Tables whose columns are hidden at the right without a sign, and those that have a sign and hide none.
UNMARKED = """(async () => {
  document.querySelectorAll("details").forEach((each) => (each.open = true));
  for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame); // until the sizes are seen
  const hides = (each) => each.scrollWidth > each.clientWidth + 1;
  const said = (each) => getComputedStyle(each, "::after").content !== "none";
  const faded = (each) => getComputedStyle(each).maskImage !== "none";
  const boxes = [...document.querySelectorAll(".wide")].filter((each) => each.clientWidth);
  const wrong = boxes.filter((each) => hides(each) !== said(each) || hides(each) !== faded(each));
  return [boxes.filter(hides).length, ...wrong.map((each) => each.textContent)];
})()"""


@pytest.mark.parametrize("name", PAGES)
def test_a_table_that_hides_columns_says_so(opened: tuple[Browser, Path], name: str) -> None:
    page, folder = opened
    hiding = {}
    for width in WIDTHS:
        page.show(width)
        page.open(folder / f"{name}.html")
        hiding[width], *wrong = page.run(UNMARKED)
        assert wrong == [], f"{width} pixels"
    assert hiding[1400] == 0 < hiding[390]


OVERPRINTED = """(() => {
  document.querySelectorAll("details").forEach((each) => (each.open = true));
  return [...document.querySelectorAll("figure svg")].flatMap((svg) => {
    const texts = [...svg.querySelectorAll("text")].map((each) => [each.textContent, each.getBoundingClientRect()]);
    const shown = texts.filter(([text, box]) => text.trim() && box.width);
    const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 &&
      Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.15 * Math.min(a.height, b.height);
    return shown.flatMap(([text, box], i) => shown.slice(i + 1).filter(([, other]) => over(box, other))
      .map(([other]) => `${text} and ${other}`));
  });
})()"""


@pytest.mark.parametrize("name", [*PAGES, "pair"])
def test_no_text_of_a_figure_lies_on_another(opened: tuple[Browser, Path], name: str) -> None:
    page, folder = opened
    for width in WIDTHS:
        page.show(width)
        page.open(folder / f"{name}.html")
        assert page.run(OVERPRINTED) == [], f"{width} pixels"


def size_of(tip: Browser, figure: str, panel: int) -> dict[str, float]:
    """Scroll to a panel, and return where its picture is and how large."""
    script = f"""(async () => {{
      const panel = [...document.querySelectorAll("#{figure} .panel")].filter((each) => each.clientWidth)[{panel}];
      panel.closest("details")?.setAttribute("open", "");
      panel.scrollIntoView({{ block: "center" }});
      for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame); // until the page has handled the scrolling
      const box = panel.querySelector("svg").getBoundingClientRect(), view = panel.querySelector("svg").viewBox.baseVal;
      return {{ left: box.left, top: box.top, scale: box.width / view.width, points: panel.dataset.points }};
    }})()"""
    return tip.run(script)


TIP = """new Promise((done) => requestAnimationFrame(() => {
  const tip = document.querySelector(".tip");
  done(tip.hidden ? "" : tip.textContent);
}))"""


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_at_any_width_and_no_request_is_made(opened: tuple[Browser, Path], name: str) -> None:
    page, folder = opened
    page.requests.clear()
    for width in WIDTHS:
        page.show(width)
        page.open(folder / f"{name}.html")
        assert page.run(CUT) == [width], f"{width} pixels"
    assert set(page.requests) == {(folder / f"{name}.html").as_uri()}
    loaded = page.run("performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded == []


def test_the_pointer_and_the_arrow_keys_show_values_of_the_data(opened: tuple[Browser, Path]) -> None:
    page, folder = opened
    page.show(1400)
    page.open(folder / "report.html")
    names = sorted(result_samples.SEVEN)
    expected = {
        ("loss_per_domain", names.index("code"), -1): "code: 3.3000 nats after 1.5 M tokens",
        ("loss_per_domain", names.index("code"), 0): "code: 4.9000 nats at the start",
        ("change_per_domain", 0, 0): "cli: 5.600 → 3.200 nats (−2.400)",
        ("training_curve", 0, 0): "training loss: 4.0000 nats at the start",
    }
    for (figure, panel, index), text in expected.items():
        found = size_of(page, figure, panel)
        x, y, *_ = json.loads(found["points"])[index]
        page.point(found["left"] + x * found["scale"] + 1, found["top"] + y * found["scale"] - 1)
        assert page.run(TIP) == text
    page.point(2, 2)
    assert page.run(TIP) == ""
    page.run("document.querySelector('#training_curve .panel').focus()")
    page.press("ArrowRight")  # from where the pointer was
    assert page.run(TIP) == f"training loss: {STEPS[1].loss:.4f} nats after 100 k tokens"


@pytest.mark.parametrize("name", PAGES)
def test_colours_follow_the_scheme_and_print_takes_few_pages(opened: tuple[Browser, Path], name: str) -> None:
    page, folder = opened
    colours = []
    for dark in (False, True):
        page.show(820, dark=dark)
        page.open(folder / f"{name}.html")
        style = "getComputedStyle(document.querySelector('figure text:not(.tick)')).fill"
        colours.append(
            [brightness(page.run(each)) for each in ("getComputedStyle(document.body).backgroundColor", style)]
        )
    (light_page, light_text), (dark_page, dark_text) = colours
    assert light_page > 0.9 and light_text < 0.3
    assert dark_page < 0.2 and dark_text > 0.7
    pdf = page.printed()
    assert 1 <= pages_of(pdf) <= (6 if name == "plan" else 5)
    page.show(PAPER)
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.run(BESIDE_THE_PAPER) == []
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


CLOSED = """[...document.querySelectorAll("details:not([open])")]
  .filter((each) => each.matches(".section") || each.querySelector("figure"))
  .map((each) => each.querySelector("summary").firstChild.textContent.trim())"""


@pytest.mark.parametrize(("name", "part"), [("report", "Targets"), ("planned", "Cost"), ("comparison", "Numbers")])
def test_print_names_the_parts_that_are_closed(opened: tuple[Browser, Path], name: str, part: str) -> None:
    page, folder = opened
    page.show(PAPER)
    page.open(folder / f"{name}.html")
    said = "[...document.querySelectorAll('.left-out')].map((each) => each.innerText).join()"
    shown = "[...document.querySelectorAll('.left-out')].some((each) => each.offsetHeight > 0)"
    assert not page.run(shown)
    closed = page.run(CLOSED)
    page.printed()
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert part in closed and page.run(shown)
        assert page.run(said) == f"Closed on the page, so not printed: {'; '.join(closed)}."
        page.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert not page.run(shown)
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def brightness(colour: str) -> float:
    """Return the mean of red, green and blue of a computed colour, 0 to 1."""
    numbers = [float(each) for each in re.findall(r"[\d.]+", colour)][:3]
    return sum(numbers) / 3 / (255 if colour.startswith("rgb") else 1)
