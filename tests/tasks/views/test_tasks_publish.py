"""What a finished pipeline puts on the parent run in MLflow, and its table in Prefect."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import result_samples as samples
from comparison_samples import three_seeds
from mlflow import MlflowClient
from mlflow.entities import Run
from planned_samples import ROUNDS, fitted, planned

from tasks.stages.comparison_report import publish_comparison
from tasks.views.mlflow_links import artifact_page
from tasks.views.mlflow_result import log_model
from tasks.views.mlflow_runs import CONFIG_TAG, PARENT_TAG, Tracker
from tasks.views.publish import PublishedRun, publish_plan, publish_results, publish_weights
from tasks.workspace import paths
from velocitune_core.comparison.statistics import summarise
from velocitune_core.config import parse_params
from velocitune_core.contracts import SettingsThen, StartingWeights
from velocitune_core.report.compared_mixtures import mixture_block, mixture_rows
from velocitune_core.report.headline import answer, comparison_answer
from velocitune_core.report.run_page import plan_figures
from velocitune_core.report.summary import summary_metrics
from velocitune_core.style.text import duration, tokens_text
from velocitune_core.train.events import Evaluated, EventFile


@pytest.mark.slow
def test_tables_files_metrics_and_missed_events_are_published(
    workspace: Path, mlflow_store: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[str] = []
    monkeypatch.setattr(
        "tasks.views.prefect_artifacts.create_table_artifact", lambda table, key, **_: tables.append(key)
    )
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "publish"}
    then = SettingsThen(everything={"training": {"seed": 3}}, changed={})
    results = samples.report_data(train=samples.train().model_copy(update={"settings": then}))
    paths.REPORT.mkdir()
    paths.TRAINED_MODEL.mkdir(parents=True)
    (paths.TRAINED_MODEL / "model.safetensors").touch()
    (paths.REPORT / "index.html").touch()
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # targets, manifest and result are missing, and left out
    folder = workspace / "runs/training-1"
    file = EventFile(folder / "events.jsonl")
    file(Evaluated(step=5, tokens=480, losses={"code": 3.25}, seconds=1.0))
    file.close()

    publish_results.fn(parse_params(settings), results, [PublishedRun("training", folder)])

    assert tables == ["velocitune-results"]
    client = MlflowClient(settings["tracking"]["uri"])
    experiment = client.get_experiment_by_name("publish")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if CONFIG_TAG in run.data.tags]
    (child,) = [run for run in runs if PARENT_TAG in run.data.tags]
    assert parent.info.status == "FINISHED"
    metrics = summary_metrics(results)
    assert parent.data.metrics["macro_average_loss/final"] == pytest.approx(metrics["macro_average_loss"]["final"])
    files = sorted(each.path for each in client.list_artifacts(parent.info.run_id))
    assert files == ["config.yaml", "dvc.lock", "report"]
    assert 3.25 in child.data.metrics.values()
    note, training = parent.data.tags["mlflow.note.content"], child.info.run_id
    assert note.startswith(answer(results).sentence) and answer(results).mixture_yaml.strip() in note
    weights, losses, _, page = re.findall(r"\]\((#[^)]+)\)", note)
    assert training in weights and quote('"weight/code"') in weights and quote('"loss/general"') in losses
    assert page == artifact_page(parent.info.experiment_id, parent.info.run_id, "report/index.html")
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.name == f"velocitune-{results.train.steps}-steps-seed-3" and model.params["seed"] == "3"
    assert model.source_run_id == training and str(model.status) == "READY"
    assert model.tags["velocitune.path"] == str(workspace / "models/trained")
    losses_of_model = {metric.key: metric.value for metric in model.metrics}
    assert losses_of_model["loss/code"] == results.train.final["code"]
    assert not list((mlflow_store / "mlartifacts").rglob("*.safetensors"))  # logged by reference

    publish_results.fn(parse_params(settings), results, [PublishedRun("training", folder)])
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    another = client.create_run(experiment.experiment_id).info.run_id  # whose model replaces this one in its folder
    log_model(Tracker(parse_params(settings)), results, another, paths.TRAINED_MODEL)
    places = {
        each.source_run_id: each.tags.get("velocitune.path")
        for each in client.search_logged_models([experiment.experiment_id])
    }
    assert places == {training: None, another: str(workspace / "models/trained")}
    assert client.get_run(parent.info.run_id).data.tags["mlflow.note.content"] == note


@pytest.mark.slow
def test_a_plan_is_on_the_parent_run_before_any_training(
    workspace: Path, mlflow_store: Path, settings: dict[str, Any]
) -> None:
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "plan"}
    plan = fitted({"code": 0.6, "law": 0.4}, bootstrap=2)
    plan = replace(plan, planned=plan.planned.model_copy(update={"rounds": ROUNDS}))
    paths.PLAN_PAGE.parent.mkdir(exist_ok=True)
    paths.PLAN_PAGE.write_text(plan.page(), encoding="utf-8")
    publish_plan(parse_params(settings), plan, plan_figures(plan))
    client = MlflowClient(settings["tracking"]["uri"])
    experiment = client.get_experiment_by_name("plan")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id])
    files = {each.path for folder in ("", "plan") for each in client.list_artifacts(parent.info.run_id, folder)}
    assert {"plan.html", "plan/plan_rates.png", "plan/plan_trade_offs.png"} <= files
    assert parent.data.metrics["plan/weight/code"] == pytest.approx(plan.plan.weights["code"])
    regrets = client.get_metric_history(parent.info.run_id, "plan/rounds/regret")
    assert [(each.step, each.value) for each in regrets] == [(11, 0.02), (15, 0.002)]


@pytest.mark.slow
def test_found_weights_are_on_the_parent_run_with_their_price_until_it_has_its_answer(
    workspace: Path, mlflow_store: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.views.prefect_artifacts.create_table_artifact", lambda table, key, **_: None)
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "weights"}
    params, found = parse_params(settings), samples.weights()
    initial = dict.fromkeys(found.domain_weights, 1 / len(found.domain_weights))
    client = MlflowClient(settings["tracking"]["uri"])

    def parent() -> Run:
        experiment = client.get_experiment_by_name("weights")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    untouched = StartingWeights(strategy="velocitune", found_by="initial", domain_weights=initial)
    untouched.write(paths.WEIGHTS)
    publish_weights(params, untouched, initial)
    note = parent().data.tags["mlflow.note.content"]
    assert note.startswith("Before the training: velocitune starts from the initial weights, which took no run.")
    assert "to copy" not in note  # under a strategy that moves them, they would be another run

    found.write(paths.WEIGHTS)
    publish_weights(params, found, initial)
    shown, note = parent(), parent().data.tags["mlflow.note.content"]
    price = f"1 run, {tokens_text(found.search[0].tokens)} tokens, {duration(found.search[0].seconds)}"
    assert f"velocitune holds weights that a search found, at the price of {price}." in note
    assert mixture_block(found.domain_weights).strip() in note
    for name, weight in found.domain_weights.items():
        assert shown.data.metrics[f"weight/{name}"] == pytest.approx(weight)
        assert f"| {name} | {round(initial[name], 4)} | {round(weight, 4)} |" in note
    (logged,) = [each.path for each in client.list_artifacts(shown.info.run_id) if each.path == "weights.json"]
    assert StartingWeights.read(Path(client.download_artifacts(shown.info.run_id, logged))) == found

    plan = planned({"code": 0.6, "law": 0.4})
    plan.write(paths.WEIGHTS)
    publish_weights(params, plan, {"code": 0.6, "law": 0.4})
    note = parent().data.tags["mlflow.note.content"]
    assert plan.planned is not None and " ".join(plan.planned.explanation) in note
    assert f"planned holds weights that a swarm of short runs found, at the price of {len(plan.paid_runs)} runs" in note
    assert artifact_page(shown.info.experiment_id, shown.info.run_id, "plan.html") in note

    publish_results.fn(params, results := samples.report_data(), [])
    publish_weights(params, found, initial)
    assert parent().data.tags["mlflow.note.content"].startswith(answer(results).sentence)


@pytest.mark.slow
def test_a_comparison_has_its_mixtures_on_the_terminal_in_prefect_and_mlflow_and_a_page_beside_the_report(
    workspace: Path,
    mlflow_store: Path,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables: dict[str, Any] = {}
    monkeypatch.setattr(
        "tasks.views.prefect_artifacts.create_table_artifact", lambda table, key, **_: tables.update({key: table})
    )
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "mixtures"}
    comparison = three_seeds()
    comparison.write(paths.COMPARISON)
    for folder, page in {paths.REPORT: "of the run", paths.COMPARISON_REPORT: "of the comparison"}.items():
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(page)
    publish_results.fn(parse_params(settings), samples.report_data(), [])
    publish_comparison.fn(parse_params(settings), comparison)
    rows = mixture_rows(summarise(comparison))
    assert tables["velocitune-mixtures"] == rows and "velocitune-comparison" in tables
    printed = capsys.readouterr().err
    assert any("*" in cell for row in tables["velocitune-comparison"] for cell in row.values())
    assert "*: left of all mixtures in at least one seed" in " ".join(printed.split())
    client = MlflowClient(settings["tracking"]["uri"])
    experiment = client.get_experiment_by_name("mixtures")
    assert experiment is not None
    parents = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    notes = [parent.data.tags["mlflow.note.content"] for parent in parents]
    note = notes[1]
    assert notes[0].startswith(answer(samples.report_data()).sentence) and note.startswith(
        comparison_answer(comparison)
    )
    for row in rows:
        assert len(row) == 5 and re.search(r" +".join(map(re.escape, row.values())), printed)
        assert f"| {' | '.join(row.values())} |" in note
    pages = [re.findall(r"\((#/experiments/\S+/artifacts/(\S+?)\?\S+)\)", each)[0][1] for each in notes]
    shown = [
        Path(client.download_artifacts(parent.info.run_id, page)).read_text()
        for parent, page in zip(parents, pages, strict=True)
    ]
    assert shown == ["of the run", "of the comparison"]


@pytest.mark.parametrize("temporary", [False, True])
def test_a_model_in_a_temporary_copy_has_no_place(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, temporary: bool
) -> None:
    folder = workspace / ".dvc/tmp/exps/one"
    paths.TRAINED_MODEL.mkdir(parents=True)
    (folder / paths.TRAINED_MODEL).mkdir(parents=True)
    if temporary:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_ROOT", str(workspace))
    client, tracker = Mock(), Mock()
    client.search_logged_models.return_value = [Mock()]
    tracker.reaching.return_value = nullcontext(client)
    log_model(tracker, samples.report_data(), "training", paths.TRAINED_MODEL)
    (_, tags), _ = client.set_logged_model_tags.call_args
    assert tags.get("velocitune.path") == (None if temporary else str(workspace / paths.TRAINED_MODEL))
