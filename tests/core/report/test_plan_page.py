"""The page of a plan: its scripts compute what Python computes, nothing is loaded, and a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from drawn_swarm import draw_swarm
from rendered import Page

from velocitune_core.export import FORMATS, Destination, Mixture, export
from velocitune_core.mixture_law import (
    MixtureLaw,
    MixturePlan,
    Objective,
    at_full_budget,
    fit_mixture_law,
    optimise_mixture,
    predict_mixture,
)
from velocitune_core.planned_weights import rounded
from velocitune_core.report import plan_data
from velocitune_core.report.other_trainers import FILLED, PLACE, fillable_texts
from velocitune_core.report.plan_page import plan_page
from velocitune_core.style.text import signed

NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
W0 = {"domain0": 0.4, "domain1": 0.3, "domain2": 0.2, "domain3": 0.1}
OBJECTIVE = Objective(
    initial_weights=W0,
    averages_worse_than_static={"by_size": 0.02},
    worse_than_static={"domain2": 0.3},
    forgetting=0.5,
    retained=["domain0"],
    initial_losses={"domain0": 4.0},
    epochs=4.0,
    domain_tokens={name: 1e6 * (index + 1) for index, name in enumerate(W0)},
    token_budget=2e6,
)


@dataclass(frozen=True)
class Planned:
    law: MixtureLaw
    objective: Objective
    plan: MixturePlan

    @property
    def page(self) -> str:
        return plan_page(self.law, self.objective, self.plan, trade_offs={})


@cache
def planned(law: str = "transfer") -> Planned:
    fitted = fit_mixture_law(
        *draw_swarm(3, domains=4).columns,
        law="transfer" if law == "full" else law,
        bootstrap=20,  # type: ignore[arg-type]
    )
    if law == "full":
        fitted = at_full_budget(fitted, W0, {"domain0": 3.0, "domain1": 2.5, "domain2": 2.0}, effect=1.3)
    return Planned(fitted, OBJECTIVE, optimise_mixture(fitted, OBJECTIVE))


def carried(page: str) -> dict:
    """The JSON in the page."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]


def in_node(page: str, expression: str, values: object = None, part: str = "function setLoss") -> object:
    """What the page's own arithmetic gives for an expression of PLAN and VALUES; `part` is of the script with it."""
    script = next(text for text in re.findall(r"<script>(.*?)</script>", page, re.S) if part in text)
    reads = 'const [PLAN, VALUES] = JSON.parse(require("fs").readFileSync(0, "utf8"));'
    program = f"{script}\n{reads}\nprocess.stdout.write(JSON.stringify({expression}));"
    given = json.dumps([carried(page), values])
    done = subprocess.run(
        [str(NODE), "-e", program], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ends(each: object) -> list[float]:
    get = each.get if isinstance(each, dict) else lambda name: getattr(each, name)
    return [get("value"), get("low"), get("high")]


@needs_node
@pytest.mark.parametrize("law", ["transfer", "loglinear", "bimix", "full"])
def test_the_page_computes_what_python_computes(law: str) -> None:
    case = planned(law)
    mixtures = np.random.default_rng(0).dirichlet(np.ones(4), 12)
    of_page = in_node(case.page, "VALUES.map((weights) => predict(PLAN, weights))", mixtures.tolist())
    assert isinstance(of_page, list)
    assert_equal_to_python(case, mixtures, of_page)


def assert_equal_to_python(case: Planned, mixtures: np.ndarray, of_page: list) -> None:
    """All numbers of the page equal those of `predict_mixture`, to 1e-6."""
    tokens = np.array(list(OBJECTIVE.domain_tokens.values()))
    for weights, shown in zip(mixtures, of_page, strict=True):
        expected = predict_mixture(case.law, case.objective, dict(zip(case.law.domains, weights, strict=True)))
        close = {"rtol": 0, "atol": 1e-6}
        for name, fields in (("losses", expected.losses), ("setDifferences", expected.set_differences)):
            np.testing.assert_allclose([ends(each) for each in shown[name]], [*map(ends, fields.values())], **close)
        for name, each in expected.differences.items():
            np.testing.assert_allclose(ends(shown["differences"][name]), ends(each), **close)
        np.testing.assert_allclose(ends(shown["average"]), ends(expected.average), **close)
        np.testing.assert_allclose(shown["epochs"], weights * 2e6 / tokens, **close)
        assert shown["distance"] == pytest.approx(expected.distance, abs=1e-6)
        assert shown["covered"] == expected.inside
        assert shown["keepsGuards"] == expected.keeps_guards


@needs_node
def test_intervals_are_those_of_the_law_and_guards_those_of_the_plan() -> None:
    case = planned()
    shown = in_node(case.page, "predict(PLAN, PLAN.mixtures[0].weights)")
    assert isinstance(shown, dict)
    of_law = case.law.interval(case.plan.weights)
    np.testing.assert_allclose(
        [ends(each)[1:] for each in shown["losses"]], [of_law[name] for name in case.law.sets], atol=1e-6
    )
    guards = {
        (guard["kind"], found["about"]): found
        for guard, found in zip(carried(case.page)["guards"], shown["guards"], strict=True)
        if found["limit"] is not None
    }
    for limit in case.plan.limits:
        if limit.kind in {"set", "average", "forgetting"}:
            found = guards[limit.kind, limit.about]
            assert (found["limit"], found["reached"]) == pytest.approx((limit.limit, limit.reached), abs=1e-6)
            assert found["keptIn"] == pytest.approx(limit.kept_in, abs=0.051)  # one resample may lie on the limit
    assert ("epochs", "domain0") in guards


@needs_node
def test_differences_are_written_as_python_writes_them() -> None:
    numbers = [-0.0004, 0.0004, 0.0, -0.0, 0.0006, -0.0006, -1.25, 12.3456]
    shown = in_node(planned().page, "VALUES.map((each) => signed(each))", numbers, "const signed")
    assert shown == [signed(number, 3) for number in numbers]


@needs_node
def test_moving_a_weight_rescales_the_others_but_not_the_locked() -> None:
    moves = [
        ([0.4, 0.3, 0.2, 0.1], [False, True, False, False], 0, 0.6),
        ([0.4, 0.3, 0.2, 0.1], [False] * 4, 3, 0.0),
        ([1.0, 0.0, 0.0, 0.0], [False] * 4, 0, 0.4),  # the others have no proportions
        ([0.4, 0.3, 0.2, 0.1], [False, True, True, True], 0, 0.9),  # nothing is left to give way
        ([0.4, 0.3, 0.2, 0.1], [False, True, False, False], 0, 0.95),  # more than the locked leave
    ]
    found = in_node(planned().page, "VALUES.map((move) => moved(...move))", moves)
    expected = [[0.6, 0.3, 0.2 / 3, 0.1 / 3], [4 / 9, 3 / 9, 2 / 9, 0], [0.4, 0.2, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1]]
    np.testing.assert_allclose(found, [*expected, [0.7, 0.3, 0, 0]], atol=1e-12)
    thirds = in_node(planned().page, "rounded([1 / 3, 1 / 3, 1 / 3], 4)")
    assert thirds == [0.3334, 0.3333, 0.3333]


@needs_node
def test_the_page_gives_the_weights_that_the_files_of_a_plan_have() -> None:
    near_ties = [[0.15145, 0.27883, 0.24584, 0.32388], [0.25005, 0.25005, 0.24995, 0.24995], [0.5, 0.5, 0.0, 0.0]]
    law = [*near_ties, *np.random.default_rng(0).dirichlet(np.ones(4), 200).tolist()]
    on_page = [plan_data.numbers(np.array(each)) for each in law]
    shown = in_node(planned().page, "VALUES.map((weights) => rounded(weights, 4))", on_page)
    assert shown == [list(rounded(dict(zip(W0, each, strict=True))).values()) for each in law]


NAMES = """VALUES.map((width) => {
  const at = (name, x, y) => ({ name, x, y });
  const mixtures = [at("recommended", -0.08, -0.0101), at("without guards", -0.0862, -0.0102), at("static", 0, 0),
    at("T = 1.5", -0.017, -0.0027), at("T = 2", -0.025, -0.0039), at("T = 3", -0.033, -0.0049),
    at("uniform", -0.049, -0.0064)];
  const points = [at("", -0.14, 0.0095), at("", -0.125, -0.0054), at("", -0.12, -0.0075), at("", -0.0862, -0.0102)];
  return tradeOffPicture(width, { title: "web", points }, "macro", mixtures, mixtures[0]);
})"""


@needs_node
def test_names_of_near_mixtures_stand_apart_and_at_their_own_mark_on_a_phone_too() -> None:
    for picture in in_node(planned().page, NAMES, [330, 480, 740], part="function tradeOffPicture"):  # type: ignore[attr-defined]
        marks = re.findall(r'<circle class="\w+" cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+"><title>(.*?)</title>', picture)
        own = {unescape(name): (float(x), float(y)) for x, y, name in marks}
        text = r'<text class="(?:strong)?" x="([\d.]+)" y="([\d.]+)" text-anchor="(start|end)">(.*?)</text>'
        boxes = {}
        for x, y, anchor, name in re.findall(text, picture):
            left = float(x) - (6.8 * len(name) if anchor == "end" else 0)
            boxes[name] = (left, float(y) - 9, left + 6.8 * len(name), float(y))
        assert boxes.keys() == own.keys()
        for name, (left, top, right, bottom) in boxes.items():
            others = [box for each, box in boxes.items() if each != name]
            assert all(b[0] >= right or b[2] <= left or b[1] >= bottom or b[3] <= top for b in others), name
            gaps = {
                each: np.hypot(max(left - x, x - right, 0), max(top - y, y - bottom, 0)) for each, (x, y) in own.items()
            }
            nearest = min(gaps, key=lambda each: gaps[each])
            assert nearest == name or 'class="leader"' in picture, name


def test_one_file_that_loads_nothing_and_says_the_answer_first() -> None:
    case = planned()
    page = Page(plan_page(case.law, case.objective, case.plan))
    assert not page.loads and "http:" not in case.page and "https:" not in case.page
    assert "Content-Security-Policy" in case.page and "default-src 'none'" in case.page
    assert page.text.index("No mixture that the runs cover") < page.text.index("Recommended weights")
    assert len(case.page) < 200_000
    curves = carried(plan_page(case.law, case.objective, case.plan))["curves"]
    assert [each["guard"] for each in curves] == ["by_size", "worse_than_static.domain2", "forgetting"]
    assert all(len(each["points"]) > 2 for each in curves)


def test_names_of_domains_cannot_break_the_page() -> None:
    attack = "</script><b onload=x>"
    weights, losses = draw_swarm(3, domains=4).columns
    law = fit_mixture_law({**{k: v for k, v in weights.items() if k != "domain3"}, attack: weights["domain3"]}, losses)
    objective = Objective()
    html = plan_page(law, objective, optimise_mixture(law, objective))
    assert "b" not in Page(html.replace("<b>", "")).tags and attack not in html
    assert attack in carried(html)["law"]["domains"]


def test_texts_for_other_trainers_are_those_of_the_export_with_places_for_the_weights() -> None:
    shares = {"code": "0.7", "off": "0.3"}
    mixture = Mixture({"code": 0.7, "off": 0.3}, "a plan")
    texts = fillable_texts(shares)
    assert list(texts) == ["params.yaml", "JSON", *(FORMATS[name].trainer for name in FILLED[1:])]
    for name in FILLED:
        found = texts["JSON" if name == "json" else FORMATS[name].trainer]["text"]
        for number, share in enumerate(shares.values()):
            found = found.replace(PLACE.format(number), share)
        block = export(mixture, FORMATS[name], Destination(unit="sequences")).block
        assert found == FORMATS[name].write(replace(block, comment=()))[""]


def test_large_laws_are_carried_with_fewer_resamples_and_processes_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    law = planned("full").law
    monkeypatch.setattr(plan_data, "MOST_PARAMETERS", 300)
    few = plan_data.carried_law(law)
    assert few.resamples == 300 // (3 * 7 + 6) - 1
    assert few.interval(W0)  # is whole
    with pytest.raises(ValueError, match="residual=False"):
        plan_data.carried_law(replace(law, residual=object()))  # type: ignore[arg-type]


DRAGS = """<script>
const curve = PLAN.curves.findIndex((each) => each.about === "domain2");
const along = document.getElementById(`along${curve}`);
along.value = 0;
along.dispatchEvent(new Event("input", { bubbles: true }));
const ofGuard = document.querySelector('[aria-label="domain2, worse than static by at most"]');
document.body.dataset.limit = ofGuard.value - PLAN.curves[curve].points[0].limit.toFixed(6);
show([1 / 3, 2 / 9, 2 / 9, 2 / 9]);
document.body.dataset.thirds = document.querySelector("#take-now pre").textContent;
show(fromAddress());
const slider = document.getElementById("s0");
slider.value = 0.4;
slider.dispatchEvent(new Event("input", { bubbles: true }));
const format = document.querySelector("#take-now select");
format.value = "Megatron-LM";
format.dispatchEvent(new Event("input", { bubbles: true }));
document.body.dataset.blend = document.querySelector("#take-now pre").textContent;
format.value = "params.yaml";
format.dispatchEvent(new Event("input", { bubbles: true }));
document.body.dataset.predictions = JSON.stringify(MIXTURES.map((weights) => predict(PLAN, weights)));
addEventListener("load", () => (document.body.dataset.requests = performance.getEntriesByType("resource").length));
</script>"""


@needs_chromium
@pytest.mark.slow
def test_a_browser_shows_what_a_dragged_weight_does_without_a_request(tmp_path: Path) -> None:
    case = planned()
    mixtures = np.random.default_rng(0).dirichlet(np.ones(4), 12)
    drags = DRAGS.replace("MIXTURES", json.dumps(mixtures.tolist()))
    page = plan_page(case.law, case.objective, case.plan).replace("</body>", f"{drags}</body>")
    (tmp_path / "plan.html").write_text(page, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    address = f"{(tmp_path / 'plan.html').as_uri()}#w=0.25,0.25,0.25,0.25"
    shown = subprocess.run(
        [str(CHROMIUM), *flags, address], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    of_page = re.search('data-predictions="(.*?)"', shown)
    assert of_page is not None
    assert_equal_to_python(case, mixtures, json.loads(unescape(of_page[1])))
    weights = dict(zip(W0, (0.4, 0.2, 0.2, 0.2), strict=True))
    differences = predict_mixture(case.law, case.objective, weights).differences
    text = " ".join(Page(shown).text.split())
    for name, each in differences.items():
        ends_shown = f"[{each.low:+.3f}, {each.high:+.3f}]"
        assert f"{name} {each.value:+.3f} {ends_shown}".replace("-", "−") in text
    assert 'data-limit="0"' in shown and "best for a limit of domain2" in text  # a set with a limit of its own
    assert "domain0: 0.4 domain1: 0.2" in text  # what is copied
    thirds = re.search('data-thirds="(.*?)"', shown, re.DOTALL)
    assert thirds is not None and re.search(r"domain0: 0\.333\d\n", thirds[1])  # four decimals, as a run holds them
    blend = " ".join(f"{weight} data/{name}_text_document" for name, weight in weights.items())
    assert f'data-blend="{blend}\n"' in shown  # for another trainer
    assert shown.count("<svg") >= 2 * len(case.law.sets) + 2  # bars, predicted against reached, weights, trade-off
    assert 'data-requests="0"' in shown
