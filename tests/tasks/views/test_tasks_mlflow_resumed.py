"""What MLflow's store holds of runs that were resumed, started over, refused, or missed for a while."""

from __future__ import annotations

from pathlib import Path

import event_samples
import pytest
from mlflow import MlflowClient
from mlflow_points import FOLDER, expected, experiment_of, replay, stored
from tiny import job as tiny_job

from tasks.runs.run_folder import record_start
from tasks.views.mlflow_runs import PARENT_TAG, Tracker
from tasks.views.mlflow_watcher import OVERFITTED_TAG
from tasks.views.publish import PublishedRun
from tasks.views.publish import replay as replay_run
from tasks.workspace.command_end import command_ended
from velocitune_core.config import Params
from velocitune_core.train.events import (
    EventFile,
    Stepped,
    read_events,
)
from velocitune_core.train.job import TrainJob
from velocitune_core.train.timeline import timeline


def test_a_run_logged_in_parts_is_complete(params: Params, client: MlflowClient, event_file: Path) -> None:
    first = Tracker(params).child("training", FOLDER)
    for event in list(read_events(event_file))[:5]:
        first(event)
    first.close()  # the run was killed here
    assert client.get_run(first.run_id).info.status == "FAILED"
    replay(Tracker(params).child("training", FOLDER), event_file)
    assert stored(client, first.run_id) == expected(event_file)
    assert client.get_run(first.run_id).info.status == "FINISHED"


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
