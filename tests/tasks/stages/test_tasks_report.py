"""The report's files are written completely or not at all, and its runs are those of the stages."""

import json
from html import unescape
from pathlib import Path

import pytest
import result_samples as samples
from planned_samples import planned, targets
from rendered import without_drawing

from tasks.runs.jobs import proxy_jobs
from tasks.runs.run_folder import run_folder
from tasks.stages.report import read_results, reported_runs, write_plan, write_report
from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.contracts import Border, ContractError, DocumentBorders


@pytest.fixture
def params() -> Params:
    source = {"source": {"type": "jsonl", "path": "x.jsonl"}}
    return parse_params(
        {
            "data": {"path": "data/raw"},
            "model": {"path": "models/mine"},
            "domains": dict.fromkeys(samples.SEVEN, source),
            "training": {"optimizer": {"learning_rate": 1e-3}, "precision": "float32"},  # that of the samples
        }
    )


@pytest.fixture
def results(workspace: Path) -> Path:
    """A workspace in which every stage but the report has run."""
    borders = DocumentBorders(start=Border(ids=[1], tokens=["<bos>"]))
    samples.manifest().model_copy(update={"documents": borders}).write(paths.MANIFEST)
    samples.initial().write(paths.INITIAL)
    samples.targets().write(paths.TARGETS)
    samples.weights().write(paths.WEIGHTS)
    samples.train().write(paths.TRAIN)
    for proxy in samples.proxies():
        proxy.write(paths.PROXIES / f"{proxy.name}.json")
    return workspace


@pytest.mark.slow
def test_page_figures_and_metrics_are_written_and_stale_figures_go(results: Path, params: Params) -> None:
    figures = paths.REPORT / "figures"
    figures.mkdir(parents=True)
    (figures / "stale.png").write_bytes(b"")
    write_report.fn(params)
    assert {path.stem for path in figures.iterdir()} == {
        "change_per_domain",
        "cost",
        "laws",
        "loss_per_domain",
        "predicted_against_reached",
        "search_weights",
        "tokens_and_epochs",
        "training_curve",
        "velocity_per_domain",
        "weights_over_time",
    }
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert "learning_rate: 0.001" in page
    assert "models/mine (1.6 M parameters)" in page  # facts of the settings
    assert "start &lt;bos&gt;, end none, attention across documents" in page
    assert params.training.optimizer.text() in unescape(page)  # with epsilon, and what is decayed
    metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    assert metrics["macro_average_loss"]["final"] == pytest.approx(3.91)
    assert sum(metrics["mean_weight"].values()) == pytest.approx(1.0)
    assert {path.name for path in (paths.REPORT / "lines").iterdir()} == {"domain_weights.json", "held_out_losses.json"}
    assert metrics["weights_tokens_share"] == 1.0 and "search (1 run)" in page


@pytest.mark.slow
def test_a_plan_has_a_page_that_answers_for_other_mixtures(results: Path, params: Params) -> None:
    shares = {name: domain.train.tokens for name, domain in samples.manifest().domains.items()}
    static = {name: tokens / sum(shares.values()) for name, tokens in shares.items()}
    planned(static).write(paths.WEIGHTS)
    targets(static).write(paths.TARGETS)
    strategy = params.strategy.model_copy(update={"name": "planned", "options": {}})
    swarm = params.mixture.swarm.model_copy(update={"bootstrap": 2})
    mixture = params.mixture.model_copy(update={"swarm": swarm})
    with without_drawing():
        write_report.fn(params.model_copy(update={"strategy": strategy, "mixture": mixture}))
    page = (paths.REPORT / "plan.html").read_text(encoding="utf-8")
    assert planned(static).planned.explanation[0] in unescape(page) and "this run" in page
    index = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert 'href="plan.html"' in index and "intervals hold what was reached" in index
    names = {"plan", "plan_trade_offs", "plan_who_pays", "plan_rates", "plan_runs"}
    assert names <= {path.stem for path in (paths.REPORT / "figures").iterdir()}


def test_the_page_of_a_plan_needs_no_training_and_goes_with_the_plan(
    results: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        "tasks.stages.report.publish_plan",
        lambda _params, _fitted, figures: logged.extend(each.name for each in figures),
    )
    for file in (paths.TRAIN, *paths.PROXIES.iterdir()):
        file.unlink()
    shares = {name: domain.train.tokens for name, domain in samples.manifest().domains.items()}
    static = {name: tokens / sum(shares.values()) for name, tokens in shares.items()}
    targets(static).write(paths.TARGETS)
    swarm = params.mixture.swarm.model_copy(update={"bootstrap": 2})
    strategy = params.strategy.model_copy(update={"name": "planned", "options": {}})
    changes = {"strategy": strategy, "mixture": params.mixture.model_copy(update={"swarm": swarm})}
    write_plan.fn(params.model_copy(update=changes), planned(static))
    assert "Which mixture to train on" in paths.PLAN_PAGE.read_text(encoding="utf-8")
    assert logged == ["plan_trade_offs", "plan_who_pays", "plan_rates", "plan_runs"]
    write_plan.fn(params, samples.weights())  # another strategy
    assert not paths.PLAN_PAGE.exists()


def test_no_credentials_of_an_address_are_on_the_page(results: Path, params: Params) -> None:
    """Of a result without settings of its own, those of params.yaml are shown."""
    tracking = params.tracking.model_copy(update={"uri": "http://ann:pa55@example.org"})
    shown = read_results(params.model_copy(update={"tracking": tracking})).config
    assert "http://***@example.org" in shown and "pa55" not in shown


def test_a_broken_file_leaves_the_old_report(results: Path, params: Params) -> None:
    paths.REPORT.mkdir()
    (paths.REPORT / "index.html").write_text("old", encoding="utf-8")
    paths.TRAIN.write_text(paths.TRAIN.read_text(encoding="utf-8")[:-50], encoding="utf-8")
    with pytest.raises(ContractError, match=r"train\.json"):
        write_report.fn(params)
    assert (paths.REPORT / "index.html").read_text(encoding="utf-8") == "old"
    assert not paths.METRICS.exists()


def test_the_results_come_from_the_proxies_the_search_and_the_training(
    results: Path, params: Params, tiny_inputs: Path
) -> None:
    params = params.model_copy(update={"model": params.model.model_copy(update={"path": str(tiny_inputs / "model")})})
    runs = reported_runs(params)
    proxies = proxy_jobs(params, samples.manifest())
    assert [run.name for run in runs] == [*(job.name for job in proxies), "training-search", "training"]
    assert (runs[0].folder, runs[-2].folder) == (run_folder(proxies[0]), paths.RUNS / "training-search-0")


def test_a_report_on_another_machine_finds_the_runs_of_its_results(
    results: Path, params: Params, tiny_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params.model_copy(update={"model": params.model.model_copy(update={"path": str(tiny_inputs / "model")})})
    set_to = {each: params.training.model_copy(update={"precision": each}) for each in ("auto", "float32")}
    expected = reported_runs(params.model_copy(update={"training": set_to["float32"]}))
    monkeypatch.setattr("velocitune_core.train.precision.uses_bfloat16", lambda precision, device: True)
    assert reported_runs(params.model_copy(update={"training": set_to["auto"]})) == expected
