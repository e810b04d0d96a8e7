"""MLflow's store holds exactly the metrics of the event files, each once."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import event_samples
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from tiny import job as tiny_job

from tasks.runs.run_folder import record_start
from tasks.views.mlflow_names import flatten
from tasks.views.mlflow_runs import CONFIG_TAG, PARENT_TAG, Tracker
from tasks.views.mlflow_watcher import OVERFITTED_TAG, RunWatcher
from tasks.views.publish import PublishedRun
from tasks.views.publish import replay as replay_run
from tasks.workspace.command_end import command_ended
from velocitune_core.config import Params, parse_params
from velocitune_core.train.events import (
    Evaluated,
    Event,
    EventFile,
    Finished,
    Reweighted,
    Started,
    Stepped,
    read_events,
)
from velocitune_core.train.job import TrainJob
from velocitune_core.train.timeline import timeline

FOLDER = Path("training-1")
Points = dict[str, list[tuple[int, int, float]]]  # metric → (step, milliseconds, value)


@pytest.fixture
def store(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(mlflow_store)
    return mlflow_store


@pytest.fixture
def params(store: Path, settings: dict[str, Any], request: pytest.FixtureRequest) -> Params:
    """An experiment of its own for every test."""
    settings["tracking"] = {"uri": f"sqlite:///{store / 'mlflow.db'}", "experiment": request.node.name}
    return parse_params(settings)


@pytest.fixture
def client(params: Params) -> MlflowClient:
    return MlflowClient(params.tracking.uri)


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
    params: Params, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_hashes() -> dict[str, str]:
        raise ValueError("dvc.lock is no YAML")

    monkeypatch.setenv("PATH", "/nowhere")  # no git
    monkeypatch.setattr("tasks.views.mlflow_runs.flatten", lambda tree, separator: [("k" * 999, 1)])
    monkeypatch.setattr("tasks.views.mlflow_runs._dvc_hashes", no_hashes)
    with caplog.at_level(logging.WARNING):
        tracker = Tracker(params)
        tracker.finish()
    assert tracker.active and "cannot be reached" not in caplog.text
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert "MLflow has not all of the settings" in caplog.text and "dvc.lock is no YAML" in caplog.text


def sample_events() -> list[Event]:
    """The events of a small run, with values that have no exact decimal."""
    start = 1_750_000_000.1234567
    found: list[Event] = [
        Started(
            time=start,
            name="training",
            total_steps=6,
            tokens_per_step=96,
            domains=["code", "law"],
            strategy="velocitune",
            precision="float32",
            parameters=1000,
            device="cpu",
            world_size=1,
        )
    ]
    for step in range(1, 7):
        found.append(
            Stepped(
                time=start + step / 7,
                step=step,
                tokens=96 * step,
                loss=4.0 / 3 / step,
                learning_rate=1e-3 / step,
                gradient_norm=0.1 * step,
                tokens_per_second=1e5 / 3,
                domain_tokens={"code": 64 * step, "law": 32 * step},
                domain_epochs={"code": step / 9, "law": step / 11},
            )
        )
        if step % 2 == 0:
            losses = {"code": 3.0 / step, "law": 5.0 / step}
            weights = {"code": 1 / 3, "law": 2 / 3}
            velocity = {"code": 0.1, "law": 1 / step}
            later = start + (step + 0.5) / 7
            found.append(Evaluated(time=later, step=step, tokens=96 * step, losses=losses, seconds=0.1))
            found.append(
                Reweighted(time=later, step=step, tokens=96 * step, weights=weights, velocity=velocity, seconds=0.1)
            )
    return [*found, Finished(time=start + 2, step=6, seconds=2.0)]


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    for event in sample_events():
        file(event)
    file.close()
    return path


def expected(path: Path, events: Sequence[Event] | None = None) -> Points:
    """The metrics that the store must hold, from the lines of the file, or from some of them."""
    points: Points = {}

    def add(event: Event, section: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            points.setdefault(f"{section}/{name}", []).append((event.step, round(event.time * 1000), value))

    for event in read_events(path) if events is None else events:
        if isinstance(event, Stepped):
            names = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
            add(event, "train", {name: getattr(event, name) for name in names})
            add(event, "tokens", {name: float(count) for name, count in event.domain_tokens.items()})
            add(event, "epochs", event.domain_epochs)
        elif isinstance(event, Evaluated):
            add(event, "loss", event.losses)
            add(event, "average_loss", {"macro": sum(event.losses.values()) / len(event.losses)})
        elif isinstance(event, Reweighted):
            add(event, "weight", event.weights)
            add(event, "velocity", event.velocity or {})
    return points


def stored(client: MlflowClient, run_id: str) -> Points:
    """Every metric of a run in the store."""
    history = {key: client.get_metric_history(run_id, key) for key in client.get_run(run_id).data.metrics}
    return {
        key: sorted((point.step, point.timestamp, point.value) for point in points) for key, points in history.items()
    }


def replay(watcher: RunWatcher, path: Path) -> str:
    for event in read_events(path):
        watcher(event)
    watcher.close()
    return watcher.run_id


def experiment_of(client: MlflowClient, params: Params) -> str:
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert experiment is not None
    return experiment.experiment_id


def parents(client: MlflowClient, params: Params) -> list[Run]:
    runs = client.search_runs([experiment_of(client, params)])
    return [run for run in runs if CONFIG_TAG in run.data.tags]


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


def test_a_run_logged_in_parts_is_complete(params: Params, client: MlflowClient, event_file: Path) -> None:
    first = Tracker(params).child("training", FOLDER)
    for event in list(read_events(event_file))[:5]:
        first(event)
    first.close()  # the run was killed here
    assert client.get_run(first.run_id).info.status == "FAILED"
    replay(Tracker(params).child("training", FOLDER), event_file)
    assert stored(client, first.run_id) == expected(event_file)
    assert client.get_run(first.run_id).info.status == "FINISHED"


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


def test_final_metrics_and_files_are_on_the_parent(params: Params, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").write_text("report")
    tracker = Tracker(params)
    tracker.log_metrics({"code/final": 1.5})
    tracker.log_artifact(tmp_path / "report")
    tracker.finish()
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


def test_missed_events_of_a_run_are_replayed(
    params: Params, client: MlflowClient, event_file: Path, tmp_path: Path
) -> None:
    replay_run(Tracker(params), PublishedRun("training", tmp_path / "gone"))
    assert len(client.search_runs([experiment_of(client, params)])) == 1  # the parent alone
    for _ in range(2):
        replay_run(Tracker(params), PublishedRun("training", event_file.parent))
    (child,) = [run for run in client.search_runs([experiment_of(client, params)]) if PARENT_TAG in run.data.tags]
    assert stored(client, child.info.run_id) == expected(event_file)


def test_a_run_that_starts_over_is_another_child(
    params: Params, client: MlflowClient, event_file: Path, tmp_path: Path, tiny_inputs: Path
) -> None:
    """As in a stage with --fresh: the watcher exists before the older attempt is moved aside."""
    job = TrainJob.model_validate(tiny_job(tiny_inputs, tmp_path), strict=False)
    folder, aside = tmp_path / "training-1", tmp_path / "training-1-0"
    folder.mkdir()
    record_start(folder, job)
    first = replay(Tracker(params).child("training", folder), event_file)
    watcher = Tracker(params).child("training", folder)
    folder.rename(aside)
    folder.mkdir()
    record_start(folder, job)
    over = replay(watcher, event_file)
    assert over != first and stored(client, over) == stored(client, first) == expected(event_file)
    record_start(folder, job)  # resumed
    assert replay(Tracker(params).child("training", folder), event_file) == over


def test_a_run_that_was_closed_as_it_started_over_stays_as_it_is_when_the_command_ends(
    params: Params, client: MlflowClient, tmp_path: Path, tiny_inputs: Path
) -> None:
    job = TrainJob.model_validate(tiny_job(tiny_inputs, tmp_path), strict=False)
    runs = []
    for attempt in ("first", "second"):
        folder = tmp_path / attempt / "training-1"
        folder.mkdir(parents=True)
        record_start(folder, job)
        runs.append(Tracker(params).child("training", folder).run_id)
    command_ended("finished")
    assert [client.get_run(run).info.status for run in runs] == ["KILLED", "FINISHED"]


def test_steps_that_a_resume_abandoned_leave_the_store(
    params: Params, client: MlflowClient, event_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed after step 6, resumed from the checkpoint at step 2 elsewhere, where the steps have other losses."""
    folder = event_file.parent
    child = Tracker(params).child("training", folder)
    *passed, _ = read_events(event_file)
    at = passed[-1].time
    found = [event_samples.overfitted(2, "code", time=at), event_samples.overfitted(4, "law", time=at)]
    with event_file.open("a", encoding="utf-8") as file:
        file.writelines(event.model_dump_json() + "\n" for event in found)
    for event in (*passed, *found):
        child(event)
    child.flush()
    first = child.run_id
    assert client.get_run(first).data.tags[OVERFITTED_TAG] == "code (step 2), law (step 4)"
    resumed = passed[0].model_copy(update={"time": 1_750_000_100.0, "step": 2, "resumed_from": 2})
    later = [
        event.model_copy(update={"time": event.time + 100, "loss": event.loss + 1})
        for event in passed
        if isinstance(event, Stepped) and event.step > 2
    ]
    attempt = EventFile(event_file)
    for event in (resumed, *later):
        attempt(event)
    attempt.close()
    events = list(read_events(event_file))
    resumption = events.index(resumed.model_copy(update={"attempt": 2}))
    for event in events[resumption:]:  # passed over: the end that the file has and a killed run has not
        child(event)
        child.flush()
    child.close()
    kept = expected(event_file, events=timeline(events))
    assert [step for step, _, _ in kept["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [value for _, _, value in kept["train/loss"][2:]] == [event.loss for event in later]
    assert child.run_id != first and stored(client, child.run_id) == kept
    assert client.get_run(child.run_id).data.tags[OVERFITTED_TAG] == "code (step 2)"
    others = [run.info.run_id for run in client.search_runs([experiment_of(client, params)])]
    assert first not in others and child.run_id in others
    assert replay(Tracker(params).child("training", folder), event_file) == child.run_id  # as at the next start
    replay_run(Tracker(params), PublishedRun("training", folder))
    assert stored(client, child.run_id) == kept
    elsewhere = params.model_copy(update={"tracking": params.tracking.model_copy(update={"experiment": "elsewhere"})})
    again = replay_run(Tracker(elsewhere), PublishedRun("training", folder))  # to a store that has nothing of it
    assert stored(client, again) == kept
    command_ended("finished")
    assert "did not take the end" not in caplog.text  # of the first, which is deleted


def test_a_run_that_is_refused_before_its_start_leaves_its_older_child_as_it_is(
    params: Params, client: MlflowClient, event_file: Path
) -> None:
    run_id = replay(Tracker(params).child("training", FOLDER), event_file)
    Tracker(params).child("training", FOLDER).close()
    assert client.get_run(run_id).info.status == "FINISHED"
    started = Tracker(params).child("training", FOLDER)
    started.flush()  # started, and ended before any event
    started.close()
    assert client.get_run(run_id).info.status == "FAILED"


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
