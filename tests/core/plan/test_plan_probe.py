"""The probe: it times real steps of a tiny model, stops at its limits, and writes what the planner reads."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import ForkedRun
from tiny import LENGTH, VOCABULARY, job

from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.plan.calibrate import calibrated
from velocitune_core.plan.cost import ModelShape, flops_per_token
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.plan.probe import EVALUATIONS, Probe, ProbeResult, _ProbedRun, _timed, measure
from velocitune_core.train.job import TrainJob


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
    result = measure(probe(tiny_inputs), SINGLE_RANK, tmp_path)
    assert before <= result.ready <= time.time()
    assert result.steps == 4
    assert result.step > 0 and result.evaluation > 0
    assert result.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def test_a_single_rank_counts_the_bytes_and_operations_of_a_learner(tiny_inputs: Path, tmp_path: Path) -> None:
    """Against the arithmetic: an optimizer, its gradients and activations, but not the libraries."""
    small = measure(probe(tiny_inputs), SINGLE_RANK, tmp_path)
    shape = ModelShape(6_224, 2, 16, 32, 2, 2, 8, VOCABULARY, tied=True)
    setting = Setting(LENGTH, 6, 3, 3)
    assert [each.micro_batch_sequences for each in small.peaks] == [1, 3]
    assert all(each.peak_bytes > small.libraries_bytes > 0 for each in small.peaks)
    assert small.step_flops == pytest.approx(flops_per_token(shape, LENGTH), rel=0.05)
    assert small.evaluation_flops == pytest.approx(small.step_flops / 3, rel=0.05)
    assert calibrated(shape, setting, small).activations == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("per_step", [False, True])
def test_gathered_parameters_are_not_taken_for_activations(per_step: bool) -> None:
    """Of two processes: a probe that found just what the arithmetic says changes nothing."""
    shape = ModelShape(6_224, 2, 16, 32, 2, 2, 8, VOCABULARY, tied=True)
    setting = Setting(LENGTH, 16, 4, 3, processes=2, gather_per_step=per_step)
    expected = memory_of(shape, replace(setting, micro_batch_sequences=1, batch_sequences=4))
    peaks = {"ready": 0.0, "step": 1.0, "steps": 1, "evaluation": 1.0, "checkpoint": None, "libraries_bytes": 1}
    found = ProbeResult(**peaks, peaks=[], tensor_bytes=expected.step, step_flops=1.0, evaluation_flops=1.0)
    assert calibrated(shape, setting, found).activations == pytest.approx(1)


@pytest.mark.parametrize("document_start", [None, 3])
def test_rows_of_a_probe_need_a_mask_where_those_of_the_run_will(
    tiny_inputs: Path, tmp_path: Path, document_start: int | None
) -> None:
    run = _ProbedRun(probe(tiny_inputs, document_start=document_start), SINGLE_RANK, tmp_path)
    assert run._learner._loss.packed(torch.from_numpy(run._tokens(2))) == (document_start is not None)


def test_no_step_starts_after_the_time_limit(tiny_inputs: Path, tmp_path: Path) -> None:
    result = measure(probe(tiny_inputs, steps=1000, seconds=0.0), SINGLE_RANK, tmp_path)
    assert result.steps == 1


def test_a_checkpoint_is_timed_on_request_and_written_below_the_scratch_folder(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    result = measure(probe(tiny_inputs, saves=True, steps=1), SINGLE_RANK, tmp_path)
    assert result.checkpoint is not None and result.checkpoint > 0
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


def test_the_program_writes_result_beside_its_settings(tiny_inputs: Path, tmp_path: Path) -> None:
    settings = tmp_path / "probe.json"
    settings.write_text(probe(tiny_inputs, steps=2).model_dump_json(), encoding="utf-8")
    run = ForkedRun([str(settings)], program="velocitune_core.plan.probe")
    _, said = run.communicate(120)
    assert run.returncode == 0, said
    result = ProbeResult.model_validate_json((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result.steps == 2


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"evaluation_sequences": 0}, {"vocabulary": 9}])
def test_invalid_settings_are_refused(tiny_inputs: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Probe.model_validate(json.loads(probe(tiny_inputs).model_dump_json()) | wrong, strict=False)
