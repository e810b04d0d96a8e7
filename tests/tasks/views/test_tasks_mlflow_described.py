"""What MLflow shows of runs beside the metrics of their events, read with MLflow's own client."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples
from comparison_samples import three_seeds
from event_samples import started
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.runs.run_folder import record_start
from tasks.views.mlflow_names import parent_name
from tasks.views.mlflow_result import show_comparison
from tasks.views.mlflow_runs import CONFIG_TAG, JOB_TAG, PARENT_TAG, Tracker
from tasks.workspace import paths
from velocitune_core.config import Evaluation, StrategyConfig, Training, parse_params
from velocitune_core.contracts import DomainFiles
from velocitune_core.train.events import Evaluated, Finished, Reweighted
from velocitune_core.train.job import KEY_LENGTH, TrainJob

SHA256 = "0" * 64  # of every file of the samples
SETTINGS: dict[str, Any] = {"batch_sequences": 2, "precision": "float32", "optimizer": {"learning_rate": 1e-3}}


@pytest.fixture
def settings(settings: dict[str, Any], mlflow_store: Path, workspace: Path, request: Any) -> dict[str, Any]:
    uri = f"sqlite:///{mlflow_store / 'mlflow.db'}"
    domains = {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} for name in samples.SEVEN}
    return {**settings, "domains": domains, "tracking": {"uri": uri, "experiment": request.node.name}}


def job(name: str, **changes: Any) -> TrainJob:
    """A run of 4 steps of 2 sequences of 256 tokens, from the base model."""
    for domain in samples.SEVEN:
        file = Path(f"prepared/{domain}.npy")
        file.parent.mkdir(exist_ok=True)
        np.save(file, np.zeros((10, 256), np.uint16))
    files = {
        domain: DomainFiles(
            train=f"prepared/{domain}.npy", held_out="x.npy", train_sha256=SHA256, held_out_sha256=SHA256
        )
        for domain in samples.SEVEN
    }
    fields: dict[str, Any] = {
        "name": name,
        "output": "",
        "model": "models/mine",
        "domains": files,
        "initial_domain_weights": {domain: row[0] for domain, row in samples.SEVEN.items()},
        "total_steps": 4,
        "training": Training.model_validate(SETTINGS),
        "evaluation": Evaluation(every_steps=2),
        "strategy": StrategyConfig(name="static"),
    }
    return TrainJob(**{**fields, **changes})


def logged(settings: dict[str, Any], run: TrainJob, begins: float = 1_750_000_000.0) -> tuple[MlflowClient, Run]:
    """The child run of a run with one evaluation, from start to end."""
    weights = dict.fromkeys(samples.SEVEN, 1 / 7)
    events = [
        started(time=begins),
        Reweighted(time=begins, tokens=0, weights=weights, seconds=0.0),
        Evaluated(time=begins + 1, step=2, tokens=1024, losses=dict.fromkeys(samples.SEVEN, 3.0), seconds=0.1),
        Finished(time=begins + 2, step=4, seconds=2.0),
    ]
    folder = Path("runs") / run.folder_name
    folder.mkdir(parents=True)
    record_start(folder, run)
    (folder / "events.jsonl").write_text("".join(event.model_dump_json() + "\n" for event in events))
    child = Tracker(parse_params(settings)).child(run.name, folder)
    for event in events:
        child(event)
        child.flush()
    child.close()
    client = MlflowClient(settings["tracking"]["uri"])
    return client, client.get_run(child.run_id)


def history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return sorted((point.step, round(point.value, 9)) for point in client.get_metric_history(run.info.run_id, key))


def test_losses_begin_with_those_of_the_base_model_and_have_averages_and_targets(settings: dict[str, Any]) -> None:
    samples.manifest().write(paths.MANIFEST)
    samples.initial().write(paths.INITIAL)
    samples.targets().write(paths.TARGETS)
    client, run = logged(settings, job("training"))
    assert history(client, run, "loss/general") == [(0, 4.45), (2, 3.0)]
    initial = [row[1] for row in samples.SEVEN.values()]
    assert history(client, run, "average_loss/macro") == [(0, pytest.approx(sum(initial) / 7)), (2, 3.0)]
    weighted = sum(row[0] * row[1] for row in samples.SEVEN.values())
    assert history(client, run, "average_loss/size_weighted") == [(0, pytest.approx(weighted)), (2, pytest.approx(3.0))]
    assert history(client, run, "target/code") == [(0, 3.38), (4, 3.38)]


def test_a_run_that_starts_elsewhere_has_no_losses_of_the_base_model_and_a_proxy_no_targets(
    settings: dict[str, Any],
) -> None:
    samples.manifest().write(paths.MANIFEST)
    samples.initial().write(paths.INITIAL)
    samples.targets().write(paths.TARGETS)
    client, proxy = logged(settings, job("proxy-0_5-seed-1", fraction=0.5))
    assert history(client, proxy, "loss/general")[0] == (0, 4.45) and "target/general" not in proxy.data.metrics
    client, sibling = logged(settings, job("swarm-of-sibling-1-seed-1-00", model="models/base/sibling"))
    assert history(client, sibling, "loss/general") == [(2, 3.0)]


def test_a_run_says_what_it_is_and_what_acted_on_it(settings: dict[str, Any]) -> None:
    settings["domains"]["code"]["source"]["path"] = "https://ann:pa55@example.org/code.jsonl"
    strategy = StrategyConfig(
        name="velocitune",
        options={"step_size": 0.5, "target_loss": {"code": 3.0}, "table": "https://ann:pa55@example.org/t"},
    )
    client, run = logged(settings, job("training", strategy=strategy))
    assert run.info.run_name == "training · velocitune · 2.05 k tokens · seed 1"
    acted = run.data.params
    assert acted["training.optimizer.learning_rate"] == "0.001" and acted["strategy.options.step_size"] == "0.5"
    assert acted["strategy.options.table"] == "https://***@example.org/t"
    assert acted["initial_domain_weights.code"] == "0.3340" and acted["total_steps"] == "4"
    assert not any("sha256" in name or "target_loss" in name for name in acted)
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    assert list(inputs) == list(samples.SEVEN)
    profile = {"sha256": SHA256, "sequences": 10, "tokens": 2560}
    assert json.loads(inputs["legal"].dataset.profile) == profile and inputs["legal"].dataset.digest == SHA256[:12]
    assert json.loads(inputs["legal"].dataset.source) == {"uri": "data/raw/legal.jsonl"}
    assert "example.org" in inputs["code"].dataset.source and "pa55" not in inputs["code"].dataset.source
    parent = client.get_run(run.data.tags[PARENT_TAG])
    assert parent.info.run_name == "pipeline · velocitune · one epoch · seed 1" and CONFIG_TAG in parent.data.tags
    assert parent.data.tags["mlflow.source.name"] and parent.data.tags["mlflow.user"] and parent.info.user_id
    assert parent_name(parse_params(settings | {"training": {**SETTINGS, "token_budget": 1_500_000}})) == (
        "pipeline · velocitune · 1.5 M tokens · seed 1"
    )


def test_the_parent_has_training_and_held_out_text_of_every_domain_once_it_is_packed(settings: dict[str, Any]) -> None:
    assert Tracker(parse_params(settings)).active  # nothing is packed yet
    manifest = samples.manifest()
    other = {"sha256": "1" * 64}  # two files: MLflow keeps one data set for each name and hash
    domains = {
        name: each.model_copy(update={"held_out": each.held_out.model_copy(update=other)})
        for name, each in manifest.domains.items()
    }
    manifest = manifest.model_copy(update={"domains": domains})
    manifest.write(paths.MANIFEST)
    for _ in range(2):
        tracker = Tracker(parse_params(settings))
    run = MlflowClient(settings["tracking"]["uri"]).get_run(tracker.parent)
    found = [(each.dataset.name, each.tags[0].value, each.dataset.profile) for each in run.inputs.dataset_inputs]
    assert sorted(name for name, *_ in found) == sorted([*samples.SEVEN] * 2)
    tokens = {(name, context): json.loads(profile)["tokens"] for name, context, profile in found}
    legal = manifest.domains["legal"]
    assert tokens["legal", "training"] == legal.train.sequences * 256
    assert tokens["legal", "held out"] == legal.held_out.sequences * 256


def test_a_run_of_a_comparison_is_not_named_as_the_pipeline(settings: dict[str, Any]) -> None:
    settings["training"]["token_budget"] = 2048  # as of its run
    client, run = logged(settings, job("velocitune-seed-1"))
    parent = client.get_run(run.data.tags[PARENT_TAG])
    assert run.info.run_name == "velocitune · 2.05 k tokens · seed 1" != parent.info.run_name


def test_the_use_of_the_machine_is_logged_while_a_run_trains_and_not_when_it_is_logged_again(
    settings: dict[str, Any],
) -> None:
    _, again = logged(settings, job("training"))
    assert not any(name.startswith("system/") for name in again.data.metrics)
    client, live = logged(settings, job("other"), time.time())
    assert 0 < live.data.metrics["system/system_memory_usage_percentage"] <= 100
    assert len(client.get_metric_history(live.info.run_id, "system/cpu_utilization_percentage")) == 1  # in ten seconds


def test_a_monitor_of_the_machine_may_fail(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise OSError("no such sensor")

    monkeypatch.setattr("tasks.views.system_metrics.SystemMetrics.due", broken)
    client, run = logged(settings, job("training"), time.time())
    assert history(client, run, "loss/general") == [(2, 3.0)] and caplog.text.count("no such sensor") == 1


def test_a_run_is_logged_again_only_if_the_store_has_not_all_of_it(settings: dict[str, Any]) -> None:
    run = job("training")
    folder = Path("runs") / run.folder_name
    client, shown = logged(settings, run)
    later = Evaluated(step=4, tokens=2048, losses={"code": 2.0}, seconds=0.1)

    def again() -> list[tuple[int, float]]:
        child = Tracker(parse_params(settings)).child("training", folder)
        child(later)
        child(Finished(step=4, seconds=2.0))
        child.close()
        assert child.run_id == shown.info.run_id and client.get_run(child.run_id).info.status == "FINISHED"
        return history(client, shown, "loss/code")

    assert again() == [(2, 3.0)]  # no event is looked at
    with (folder / "events.jsonl").open("a") as file:
        file.write(later.model_dump_json() + "\n")
    assert again() == [(2, 3.0), (4, 2.0)]


def test_the_chart_of_a_comparison_has_the_newest_run_of_each_job_whatever_its_name(settings: dict[str, Any]) -> None:
    tracker, comparison = Tracker(parse_params(settings)), three_seeds()
    first, *others = comparison.runs
    result = first.result.model_copy(update={"recipe": "a" * 64})
    comparison = comparison.model_copy(update={"runs": [first.model_copy(update={"result": result}), *others]})
    client = MlflowClient(settings["tracking"]["uri"])
    tags = {PARENT_TAG: tracker.parent, JOB_TAG: f"training-{'a' * KEY_LENGTH}", "velocitune.name": "training"}
    old, new = (client.create_run(tracker.experiment, start, tags).info.run_id for start in (1, 2))
    show_comparison(tracker, comparison)
    note = client.get_run(tracker.parent).data.tags["mlflow.note.content"]
    assert new in note and old not in note
