"""The report: rows, metrics and key figures worked out by hand, and a self-contained page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import result_samples as samples
from planned_samples import BOUGHT, ROUNDS, planned
from rendered import Page, words

from velocitune_core.contracts import ContractError, Timings
from velocitune_core.export import FORMATS, Destination, export, of_training, with_manifest
from velocitune_core.report import headline, run_page
from velocitune_core.report.headline import answer
from velocitune_core.report.run_page import most_moved, predictions_reached, render_report, report_figures
from velocitune_core.report.summary import formatted_rows, key_figures, result_rows, summary_metrics


def test_rows_hold_the_numbers_of_each_domain() -> None:
    rows = {row["domain"]: row for row in result_rows(samples.report_data())}
    assert list(rows) == sorted(samples.SEVEN)
    code = rows["code"]
    assert (code["initial_weight"], code["final_weight"]) == (0.334, pytest.approx(0.21))
    assert code["tokens"] == 408_000
    assert code["epochs"] == pytest.approx(408 / 501)
    assert code["gap_closed"] == pytest.approx(1.60 / 1.52)  # 4.90 → 3.30 of 4.90 → 3.38
    assert code["target_error"] == pytest.approx(0.08 / 3.30)
    assert not code["worse_than_initial"]
    general = rows["general"]
    assert general["gap_closed"] is None  # its target lies above its initial loss
    assert general["worse_than_initial"]
    assert general["flags"] == ["above_initial"]


def test_formatted_rows_are_text() -> None:
    rows = {row["domain"]: row for row in formatted_rows(samples.report_data())}
    assert rows["code"] == {
        "domain": "code",
        "tokens": "408 k",
        "weight, initial → final": "33.4 % → 21.0 %",
        "epochs": "0.81",
        "initial": "4.900",
        "target": "3.380",
        "reached": "3.300",
        "gap closed": "105 %",
        "target error": "+2.4 %",
        "flags": "",
    }
    assert rows["general"]["reached"] == "4.710 ▲"
    assert rows["general"]["gap closed"] == "–"
    assert rows["general"]["flags"] == "above initial"


def test_a_mixture_that_never_moved_is_in_the_headline() -> None:
    report = samples.report_data()
    assert key_figures(report)["mixture"].endswith("general 2.0 % (mean of the run)")
    start = report.train.domain_weights[0]
    still = {"mean_domain_weights": start.weights, "domain_weights": [start]}
    train = report.train.model_copy(update=still)
    still_there = f"did not move: all {train.steps} steps used the domain weights of the start"
    figures = key_figures(replace(report, train=train))
    assert figures["mixture"] == f"{still_there} (no update; lower evaluation.every_steps)"
    assert f". The mixture {figures['mixture']}. Whether" in figures["answer"]
    page = " ".join(Page(render_report(replace(report, train=train), [])).text.split())
    assert page.count(f"The mixture {figures['mixture']}.") == 1
    unchanged = train.model_copy(update={"domain_weights": [start] * 4})
    assert key_figures(replace(report, train=unchanged))["mixture"] == f"{still_there} (3 updates changed nothing)"
    static = train.model_copy(update={"strategy": "static"})
    assert key_figures(replace(report, train=static))["mixture"].startswith("code 33.4 %, legal 20.0 %")
    between = train.model_copy(update={"mean_domain_weights": dict.fromkeys(start.weights, 1 / 7)})
    assert key_figures(replace(report, train=between))["mixture"].startswith("biomed 14.3 %, cli 14.3 %")


def test_overfitted_domains_are_on_the_page_with_numbers_and_what_helps() -> None:
    report = samples.report_data(train=samples.overfitted("cli", "legal"))
    flags = {row["domain"]: row["flags"] for row in formatted_rows(report)}
    assert (flags["cli"], flags["code"], flags["general"]) == ("overfitted", "", "above initial")
    page = render_report(report, [])
    shown = " ".join(Page(page).text.split())
    cli = "cli (loss 3.000 at step 195 → 3.200 at the end, weight 3.0 % → 3.9 %, 1.1 epochs; found at step 207)"
    assert f"Probably overfitted, as losses rose while weights grew: {cli} and legal (loss" in shown
    assert "What helps: training.max_epochs caps" in shown
    assert page.count('<td class="worse">') == 3  # their weights, and the change of general
    many = render_report(samples.report_data(train=samples.overfitted("cli", "code", "legal", "papers")), [])
    assert many.count("; found at step") == 3 and "and 1 more. What helps" in many


def test_what_was_not_read_is_on_the_page() -> None:
    report = samples.report_data()
    code = report.manifest.domains["code"].model_copy(update={"left_out": 1, "left_out_shown": ["a.csv: not a .jsonl"]})
    manifest = report.manifest.model_copy(update={"domains": report.manifest.domains | {"code": code}})
    assert manifest.not_read() == ["code: 1 in its source not read: a.csv: not a .jsonl"]
    assert manifest.not_read()[0] in render_report(replace(report, manifest=manifest), [])


def test_metrics() -> None:
    metrics = summary_metrics(samples.report_data())
    assert metrics["macro_average_loss"] == {
        "initial": pytest.approx(34.65 / 7),
        "final": pytest.approx(27.37 / 7),
    }
    # .334·3.30 + .2·3.10 + .133·(3.20 + 4.05) + .067·(4.45 + 4.56) + .066·4.71
    assert metrics["size_weighted_loss"]["final"] == pytest.approx(3.60098)
    assert metrics["loss"]["general"] == 4.71
    assert metrics["target_error"]["general"] == pytest.approx(0.09 / 4.71)
    assert metrics["evaluation_share"] == pytest.approx(8 / 200)
    assert metrics["proxy_tokens_share"] == pytest.approx(7 / 8)
    assert metrics["tokens_per_second"] == 9_000
    assert metrics["worst_shortfall"] == pytest.approx(-0.05 / 2.05)  # legal; general has no gap


def test_a_shortfall_that_does_not_exist_is_left_out() -> None:
    retained = {"general": samples.SEVEN["general"]}
    assert "worst_shortfall" not in summary_metrics(samples.report_data({"general": (1.0, *retained["general"][1:])}))


def test_no_time_and_no_proxies_give_shares_of_zero() -> None:
    train = samples.train(strategy="static").model_copy(update={"seconds": Timings()})
    data = samples.report_data(train=train, proxies=(), targets=samples.targets_by_hand())
    assert summary_metrics(data)["evaluation_share"] == 0
    assert summary_metrics(data)["proxy_tokens_share"] == 0
    assert key_figures(data)["evaluation and reweighting"] == "0.0 % of the run's wall time"
    assert render_report(data, [])


def test_key_figures_name_gains_losses_flags_and_cost() -> None:
    assert key_figures(samples.report_data()) == {
        "answer": headline.answer(samples.report_data()).sentence,
        "strategy": "velocitune",
        "mixture": "code 24.1 %, legal 17.0 %, cli 16.1 %, papers 14.6 %, biomed 13.4 %, literature 12.9 % and general "
        "2.0 % (mean of the run)",
        "tokens": "1.5 M",
        "mean held-out loss of 7 domains": "4.950 → 3.910 nats per token (−21.0 %)",
        "largest gains": "cli (−2.40 nats), legal (−2.10 nats) and code (−1.60 nats)",
        "worse than the base model": "general (+0.26 nats)",
        "flagged targets": "above initial (general)",
        "evaluation and reweighting": "4.0 % of the run's wall time",
    }


def test_key_figures_of_one_domain_and_of_flags_on_all() -> None:
    alone = key_figures(samples.report_data({"code": (1.0, 4.9, 3.38, 3.3)}))
    assert alone["held-out loss"] == "4.900 → 3.300 nats per token (−32.7 %)"
    assert alone["worse than the base model"] == "no domain"
    assert not {"largest gains", "flagged targets"} & set(alone)
    targets = samples.targets()
    few = {name: part.model_copy(update={"flags": ["too_few_points"]}) for name, part in targets.domains.items()}
    data = samples.report_data(targets=targets.model_copy(update={"domains": few}))
    assert key_figures(data)["flagged targets"] == "too few points (all domains)"


def test_key_figures_where_every_domain_got_worse() -> None:
    final = {name: row[1] + 0.1 for name, row in samples.SEVEN.items()}
    found = key_figures(samples.report_data(train=samples.train().model_copy(update={"final": final})))
    assert found["mean held-out loss of 7 domains"].startswith("4.950 → 5.050 ")
    assert "largest gains" not in found
    assert found["worse than the base model"].endswith("and 2 more")


def test_parts_of_different_domains_are_refused_together() -> None:
    others = {name: row for name, row in samples.SEVEN.items() if name != "cli"}
    with pytest.raises(ContractError, match=r"(?s)targets: missing \['cli'\].*proxy f0.125-s1: missing \['cli'\]"):
        samples.report_data(targets=samples.targets(others), proxies=tuple(samples.proxies(others)))


def test_the_page_is_self_contained() -> None:
    html = render_report(samples.report_data(extras={"torch": "2.13.0"}))
    page = Page(html)
    assert page.tags.count("figure") == 9
    assert all(source.startswith("#") for source in page.loads)  # of parts of a picture
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg\")|@import|url\((?!#)", html)
    assert page.tags.count("script") == 1 and not {"link", "iframe", "object", "img"} & set(page.tags)
    assert len(html) < 1_000_000
    shown = " ".join(page.text.split())
    assert "33.4 % → 21.0 %" in shown
    assert "Evaluation plus reweighting: 4.0 % of the run's wall time" in shown
    assert "3 runs before it read 88 % of its tokens" in shown
    assert answer(samples.report_data()).mixture_yaml in html
    assert "2.13.0" in shown
    assert html.count('<td class="worse">') == 1
    order = [html.index(each) for each in ("<h1", 'class="tiles"', 'id="change_per_domain"', "Result per", "More of")]
    assert order == sorted(order)


def test_the_mixture_is_there_for_other_trainers_as_the_command_writes_it() -> None:
    report = samples.report_data()
    shown = Page(render_report(report, [])).text
    mixture = with_manifest(of_training(report.train), report.manifest)
    for name, to in FORMATS.items():
        if name != "trl":
            assert export(mixture, to, Destination(schedule="mean")).files[""] in shown, name
    assert "--to trl: fraction: 1500000 tokens are more than one epoch of some domains" in shown


def test_a_plan_is_on_the_page_with_what_was_predicted_and_reached() -> None:
    static = {name: row[0] for name, row in samples.SEVEN.items()}
    report = samples.report_data(weights=planned(static))
    rows = {row["held-out set"]: row for row in predictions_reached(report)}
    assert rows.keys() == static.keys()
    assert (rows["code"]["reached"], rows["code"]["inside"]) == ("3.300", "no")  # 3 nats were the static loss
    assert 3 < float(rows["code"]["predicted"]) < 3.5  # under less weight
    (figure,) = [each.figure for each in report_figures(report) if each.name == "plan"]
    weights, outcome = figure.axes
    assert len(weights.lines) == len(outcome.lines) == 3 * 7  # a line, a dot and a diamond per row
    assert {float(line.get_xdata()[0]) for line in outcome.lines} >= {row[3] for row in samples.SEVEN.values()}
    assert "diamond: initial" in words(figure) and "diamond: reached" in words(figure)
    text = render_report(report, [])
    assert "The plan of the mixture" in text and "No mixture that the runs cover" in text
    assert "swarm (20 runs)" in text and "Rounds of the swarm" not in text
    found = planned(static)
    assert found.planned is not None
    in_rounds = found.model_copy(update={"planned": found.planned.model_copy(update={"rounds": ROUNDS})})
    assert BOUGHT in render_report(samples.report_data(weights=in_rounds), [])
    losses = found.planned.plan["mixtures"]["recommended"]["losses"]
    losses["target"] = losses["code"]  # a set without training text
    measured = report.train.model_copy(update={"measured": {"target": 3.3}})
    judged = predictions_reached(replace(report, weights=found, train=measured))
    assert {row["held-out set"]: row["inside"] for row in judged}["target"] == "no target"
    assert predictions_reached(samples.report_data(weights=samples.weights())) == []


def test_html_in_results_is_escaped() -> None:
    attack = '<script>alert("x")</script>&<img src=http://evil.example/x>'
    domains = {attack: samples.SEVEN["code"], "general": samples.SEVEN["general"]}
    page = Page(render_report(samples.report_data(domains, config=f"domains: {attack}\n", extras={attack: attack}), []))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert page.text.count(attack) >= 4  # answer, table row, extras, settings


def test_of_many_domains_figures_show_the_most_moved_and_the_table_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_page, "DOMAINS_DRAWN", 3)  # 36 take long to draw
    data = samples.report_data()
    few = set(most_moved(data, 3).initial_domain_weights)
    moved = {
        name: abs(data.train.domain_weights[-1].weights[name] - share)
        for name, share in data.initial_domain_weights.items()
    }
    assert len(few) == 3
    assert min(moved[name] for name in few) >= max(change for name, change in moved.items() if name not in few)
    assert most_moved(data, 7) == data
    figures = {each.name: each.figure for each in report_figures(data)}
    for name in ("loss_per_domain", "laws", "predicted_against_reached", "tokens_and_epochs"):
        text = words(figures[name])
        assert {domain for domain in moved if domain in text} == few, name
    page = render_report(data, [])
    assert "Of 7 domains" in page and "show the 3 whose weight" in page
    assert all(f'<th scope="row">{name}</th>' in page for name in moved)
    monkeypatch.undo()
    assert "domains, figures with" not in render_report(data, [])
