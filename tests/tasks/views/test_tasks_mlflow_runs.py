"""MLflow's store holds exactly the metrics of the event files, each once."""

from __future__ import annotations

import logging
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow_points import FOLDER, expected, parents, replay, sample_events, stored

from tasks.views.mlflow_names import flatten
from tasks.views.mlflow_recorded import log_recorded
from tasks.views.mlflow_runs import PARENT_TAG, Tracker
from velocitune_core.config import Params, parse_params
from velocitune_core.train.events import (
    EventFile,
    Stepped,
)


def test_no_credentials_of_an_address_reach_the_store_or_the_log(
    params: Params, client: MlflowClient, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    next(iter(settings["domains"].values()))["source"]["path"] = "https://ann:pa55@example.org/a.jsonl"
    Tracker(parse_params(settings))
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    config = Path(client.download_artifacts(run.info.run_id, "config.yaml")).read_text()
    assert "example.org" in config and "pa55" not in config
    assert "pa55" not in str(run.data.params)
    settings["tracking"]["uri"] = "http://ann:pa55@127.0.0.1:9"
    with caplog.at_level(logging.WARNING):
        assert not Tracker(parse_params(settings)).active
    assert "http://***@127.0.0.1:9" in caplog.text and "pa55" not in caplog.text


def test_an_optional_tag_or_setting_never_costs_the_run(
    params: Params,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no git
    monkeypatch.setattr("tasks.views.mlflow_runs.flatten", lambda tree, separator: [("k" * 999, 1)])
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text("stages: {")
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(params)
        log_recorded(tracker)
        tracker.finish()
    assert tracker.active and "cannot be reached" not in caplog.text
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert "MLflow has not all of the settings" in caplog.text and "DVC's hashes: while parsing" in caplog.text


def test_the_store_holds_the_events_of_the_file_once(params: Params, client: MlflowClient, event_file: Path) -> None:
    run_id = replay(Tracker(params).child("training", FOLDER), event_file)
    first = stored(client, run_id)
    assert first == expected(event_file) and len(first) == 15
    assert all(math.isfinite(value) for points in first.values() for _, _, value in points)
    assert replay(Tracker(params).child("training", FOLDER), event_file) == run_id
    assert stored(client, run_id) == first
    child, parent = client.get_run(run_id), parents(client, params)[0]
    assert child.data.tags[PARENT_TAG] == parent.info.run_id and child.info.status == "FINISHED"
    assert child.info.run_name == "training" and child.data.params == {"precision": "float32"}


def test_a_configuration_has_one_parent(params: Params, client: MlflowClient, settings: dict[str, Any]) -> None:
    first, again = Tracker(params), Tracker(parse_params(settings))
    assert first.active and again.active
    assert len(parents(client, params)) == 1
    jobs = [first.child("training", FOLDER), again.child("training", FOLDER), again.child("other", Path("b-2"))]
    assert jobs[0].run_id == jobs[1].run_id != jobs[2].run_id
    settings["execution"] = {"log_every_steps": 9, "checkpoints_kept": 1}  # another way of computing the same runs
    assert Tracker(parse_params(settings)).active and len(parents(client, params)) == 1
    settings["training"]["seed"] = 2
    other = Tracker(parse_params(settings))
    assert len(parents(client, params)) == 2
    assert other.child("training", FOLDER).run_id != jobs[0].run_id


def test_parents_of_the_same_strategy_budget_and_seed_are_named_by_what_differs(
    params: Params, client: MlflowClient, settings: dict[str, Any]
) -> None:
    name = "pipeline · velocitune · one epoch · seed 1"
    Tracker(params)
    settings["strategy"]["options"] = {"step_size": 0.5}
    Tracker(parse_params(settings))
    settings["domains"]["web"] = {"source": {"type": "jsonl", "path": "web.jsonl"}}
    Tracker(parse_params(settings))
    names = {run.info.run_name for run in parents(client, params)}
    assert names >= {name, f"{name} · strategy.options.step_size 0.5"}
    (other,) = names - {name, f"{name} · strategy.options.step_size 0.5"}
    assert re.fullmatch(rf"{name} · \d+ other settings \([0-9a-f]{{6}}\)", other)
    del settings["domains"]["web"]
    settings["strategy"]["options"] = {}
    assert Tracker(parse_params(settings)).active and len(parents(client, params)) == 3  # the first one again


def test_a_comparison_is_a_parent_of_its_own_with_the_settings_that_it_uses(
    params: Params, client: MlflowClient, settings: dict[str, Any]
) -> None:
    settings["compare"] = {"seeds": [1, 2], "baseline": "a", "runs": {name: {"strategy": "static"} for name in "abc"}}
    pipeline, comparison = Tracker(parse_params(settings)), Tracker(parse_params(settings), comparing=True)
    settings["strategy"], settings["training"]["seed"] = {"name": "static"}, 7  # not those of a comparison
    assert Tracker(parse_params(settings), comparing=True).parent == comparison.parent
    assert Tracker(parse_params(settings)).parent != pipeline.parent
    settings["compare"]["runs"]["c"]["strategy"] = "recommended"
    Tracker(parse_params(settings), comparing=True)
    settings["training"]["token_budget"] = 1_500_000
    Tracker(parse_params(settings), comparing=True)
    settings["training"] |= {"token_budget": None, "seed": 1}
    settings["strategy"] = {"name": "velocitune", "options": {}}
    assert Tracker(parse_params(settings)).parent == pipeline.parent == Tracker(params).parent  # whatever is compared
    assert sorted(run.info.run_name or "" for run in parents(client, params)) == [
        "comparison · 3 strategies × 2 seeds · 1.5 M tokens",
        "comparison · 3 strategies × 2 seeds · one epoch",
        "comparison · 3 strategies × 2 seeds · one epoch · compare.runs.c.strategy recommended",
        "pipeline · static · one epoch · seed 7",
        "pipeline · velocitune · one epoch · seed 1",
    ]


def test_runs_that_start_together_have_one_parent(params: Params, client: MlflowClient) -> None:
    with ThreadPoolExecutor(4) as threads:
        trackers = list(threads.map(lambda _: Tracker(params), range(4)))
    assert all(tracker.active for tracker in trackers) and len(parents(client, params)) == 1


def test_the_parent_shows_the_configuration(params: Params, client: MlflowClient) -> None:
    Tracker(params)
    parent = parents(client, params)[0]
    assert parent.data.params["training.optimizer.learning_rate"] == "0.001"
    assert parent.data.params["domains.law.source.path"] == "law.jsonl"
    config = Path(client.download_artifacts(parent.info.run_id, "config.yaml"))
    assert parse_params(yaml.safe_load(config.read_text())) == params


def test_final_metrics_and_files_are_on_the_parent(
    params: Params, client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").write_text("report")
    tracker = Tracker(params)
    long = "label" * 30 + "/loss/" + "domain" * 20  # of names that are not too long themselves
    tracker.log_metrics({"code/final": 1.5, long: 2.0})
    tracker.log_artifact(tmp_path / "report")
    tracker.finish()
    assert tracker.active and f"MLflow takes no name of more than 250 characters: {long} is left out" in caplog.text
    parent = parents(client, params)[0]
    assert parent.data.metrics == {"code/final": 1.5} and parent.info.status == "FINISHED"
    assert [each.path for each in client.list_artifacts(parent.info.run_id, "report")] == ["report/index.html"]


def test_a_loss_that_is_not_finite_does_not_exclude_other_metrics(
    params: Params, client: MlflowClient, event_file: Path
) -> None:
    whole = expected(event_file)
    step = next(event for event in sample_events() if isinstance(event, Stepped))
    file = EventFile(event_file)
    for number, loss in enumerate([math.nan, math.inf], start=7):
        file(step.model_copy(update={"step": number, "loss": loss, "gradient_norm": loss}))
    file.close()
    run_id = replay(Tracker(params).child("training", FOLDER), event_file)
    replay(Tracker(params).child("training", FOLDER), event_file)
    found = {key: [point for point in points if point[0] <= 6] for key, points in stored(client, run_id).items()}
    assert found == whole
    assert len(client.get_metric_history(run_id, "tokens/code")) == 8


@pytest.mark.timeout(60)
def test_a_store_out_of_reach_costs_a_warning(
    store: Path, settings: dict[str, Any], event_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings["tracking"] = {"uri": "http://127.0.0.1:9"}
    start = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="tasks.views.mlflow_runs"):
        tracker = Tracker(parse_params(settings))
        assert not tracker.active
        assert replay(tracker.child("training", FOLDER), event_file) == ""
        tracker.log_metrics({"code/final": 1.5})
        tracker.log_artifact(event_file)
        tracker.finish()
    assert time.monotonic() - start < 15
    messages = [record.getMessage() for record in caplog.records if record.name == "tasks.views.mlflow_runs"]
    assert len(messages) == 1 and "http://127.0.0.1:9" in messages[0] and "cannot be reached: " in messages[0]


def test_nested_settings_are_flattened() -> None:
    tree = {"a": {"b": 1, "c": {"d": [2]}}, "e": None, "f": {}}
    assert dict(flatten(tree, ".")) == {"a.b": 1, "a.c.d": [2], "e": None}
    assert dict(flatten(tree, "/")) == {"a/b": 1, "a/c/d": [2], "e": None}
