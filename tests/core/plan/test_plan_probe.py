"""The probe: it times real steps of a tiny model, stops at its limits, and writes what the planner reads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import LENGTH, VOCABULARY, job

from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.plan.probe import EVALUATIONS, Probe, ProbeTimings, _timed, measure
from velocitune_core.train.job import TrainJob

PROJECT = Path(__file__).parents[3]


def probe(inputs: Path, **changes: object) -> Probe:
    like = TrainJob.model_validate(job(inputs, inputs))
    settings = {
        "model": str(inputs / "model"),
        "training": like.training,
        "execution": like.execution,
        "sequence_length": LENGTH,
        "vocabulary_size": VOCABULARY,
        "evaluation_sequences": 3,
        "steps": 4,
        "seconds": 60.0,
        "saves": False,
        "threads": 1,
    }
    return Probe(**{**settings, **changes})


def test_a_single_rank_times_steps_and_evaluations(tiny_inputs: Path, tmp_path: Path) -> None:
    before = time.time()
    timings = measure(probe(tiny_inputs), SINGLE_RANK, tmp_path)
    assert before <= timings.ready <= time.time()
    assert timings.steps == 4
    assert timings.step > 0 and timings.evaluation > 0
    assert timings.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def test_no_step_starts_after_the_time_limit(tiny_inputs: Path, tmp_path: Path) -> None:
    timings = measure(probe(tiny_inputs, steps=1000, seconds=0.0), SINGLE_RANK, tmp_path)
    assert timings.steps == 1


def test_a_checkpoint_is_timed_on_request_and_written_below_the_scratch_folder(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    timings = measure(probe(tiny_inputs, saves=True, steps=1), SINGLE_RANK, tmp_path)
    assert timings.checkpoint is not None and timings.checkpoint > 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_the_first_call_is_not_timed() -> None:
    calls: list[float] = []

    def act() -> None:
        time.sleep(0.2 if not calls else 0.01)
        calls.append(time.perf_counter())

    seconds = _timed(act, EVALUATIONS, 60.0, SINGLE_RANK)
    assert len(calls) == EVALUATIONS + 1
    assert len(seconds) == EVALUATIONS
    assert max(seconds) < 0.15


@pytest.mark.slow
def test_the_program_writes_timings_beside_its_settings(tiny_inputs: Path, tmp_path: Path) -> None:
    settings = tmp_path / "probe.json"
    settings.write_text(probe(tiny_inputs, steps=2).model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "velocitune_core.plan.probe", str(settings)]
    subprocess.run(command, check=True, cwd=PROJECT, timeout=120)
    timings = ProbeTimings.model_validate_json((tmp_path / "timings.json").read_text(encoding="utf-8"))
    assert timings.steps == 2


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"evaluation_sequences": 0}, {"vocabulary": 9}])
def test_invalid_settings_are_refused(tiny_inputs: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Probe.model_validate(json.loads(probe(tiny_inputs).model_dump_json()) | wrong, strict=False)
