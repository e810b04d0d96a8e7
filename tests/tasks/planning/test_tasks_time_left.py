"""The time that is left, by the speed of a finished run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import result_samples as samples

from tasks.planning.stages import FURTHER_ROUNDS
from tasks.planning.time_left import TimeLeft, seconds_of, speed_of
from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.contracts import Manifest
from velocitune_core.plan.cost import Cost, Run, Stage

STAGES = ["prepare", "initial", "proxies", "targets", "weights", "train", "report"]


@pytest.fixture
def params(workspace: Path) -> Params:
    """One proxy of a quarter; the mixture of the samples has 366 steps of 16 sequences of 256 tokens."""
    tree = {"path": "models/base"}
    domains = {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}} for name in samples.SEVEN}
    samples.manifest().write(paths.MANIFEST)
    return parse_params(
        {
            "model": tree,
            "data": {"path": "data", "sequence_length": 256},
            "domains": domains,
            "proxies": {"fractions": [0.25], "seeds": [1]},
            "targets": {"points": "intermediate"},
            "strategy": {"name": "recommended"},
            "evaluation": {"every_steps": 32},
            "training": {"batch_sequences": 16, "optimizer": {"learning_rate": 1e-3}},
        }
    )


def finished_run(name: str, model: str, waited: float) -> None:
    """A run of 1.5 M tokens in 200 s, which had waited for so long before."""
    folder = paths.RUNS / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"model": model}))
    samples.train().write(folder / "result.json")
    os.utime(folder / "job.json", (1000, 1000))
    os.utime(folder / "result.json", (1200 + waited, 1200 + waited))


def test_nothing_is_said_without_a_run_of_that_model(params: Params) -> None:
    finished_run("other-0", "models/other", 1)
    assert TimeLeft(params).from_stage("proxies", STAGES) == ""
    assert TimeLeft(params).from_stage("prepare", STAGES) == ""


def test_the_runs_from_a_stage_on_are_counted(params: Params) -> None:
    finished_run("base-0", "runs/base-inputs/untrained", 2)
    speed = speed_of(Path("models/base"))
    assert speed is not None and speed.start_seconds == 2
    tokens = 16 * 256
    full = Manifest.read(paths.MANIFEST)
    steps = sum(domain.train.sequences for domain in full.domains.values()) // 16
    train = 2 + steps * tokens * 200 / samples.BUDGET
    assert seconds_of("train", params, full) == pytest.approx(train)
    assert seconds_of("weights", params, full) == pytest.approx(train)  # the search takes a whole budget
    assert seconds_of("proxies", params, full) == pytest.approx(2 + round(steps / 4) * tokens * 200 / samples.BUDGET)
    assert TimeLeft(params).from_stage("train", STAGES) == ", about 3.4 min left"
    assert TimeLeft(params).from_stage("weights", STAGES) == ", about 6.7 min left"
    assert TimeLeft(params).from_stage("targets", STAGES) == ""


def test_before_a_comparison_nothing_is_said(params: Params) -> None:
    finished_run("base-0", "models/base", 2)
    assert TimeLeft(params).from_stage("proxies", [*STAGES[:4], "compare"]) == ""


def test_a_search_with_a_reference_is_two_runs_one_after_the_other(params: Params) -> None:
    finished_run("base-0", "models/base", 2)
    strategy = params.strategy.model_copy(update={"name": "doremi"})
    resources = params.resources.model_copy(update={"runs_per_device": 2})
    doremi = params.model_copy(update={"strategy": strategy, "resources": resources})
    train, weights = (seconds_of(stage, doremi, samples.manifest()) for stage in ("train", "weights"))
    assert train is not None and weights == pytest.approx(2 * train)


def test_further_rounds_of_a_swarm_are_counted(params: Params) -> None:
    run = Run("run", 1, 1, 1, evaluations=0, evaluated_sequences=0)
    stages = [Stage("weights", (run, run), finished=1), Stage(FURTHER_ROUNDS, (run,) * 6), Stage("train", (run,))]
    prices = [Cost(tokens, 1, 1.0, 0.0, 10.0 * tokens) for tokens in (20, 60, 100)]
    left = TimeLeft(params, SimpleNamespace(stages=stages, prices=prices))  # type: ignore[arg-type]
    manifest = Manifest.read(paths.MANIFEST)
    assert (left.tokens(["weights"]), left.seconds(["weights"], manifest)) == (70, 700)
    assert (left.tokens(STAGES), left.seconds(STAGES[4:], manifest)) == (170, 1700)
    finished_run("base-0", "models/base", 2)
    first_round = seconds_of("weights", params, manifest)
    assert first_round and left.seconds(["weights"], manifest) == pytest.approx(3.5 * first_round)


def test_headings_leave_out_what_was_finished_and_take_a_probe_where_no_run_was(params: Params) -> None:
    run = Run("run", 1, 1, 1, evaluations=0, evaluated_sequences=0)
    stages = [Stage("proxies", (run, run), finished=1), Stage("weights", (run,)), Stage("train", (run,))]
    price = Cost(tokens=10, steps=1, training_flops=1.0, evaluation_flops=0.0, seconds=3600.0)
    left = TimeLeft(params, SimpleNamespace(stages=stages, prices=[price] * 3))  # type: ignore[arg-type]
    manifest = Manifest.read(paths.MANIFEST)
    assert (left.tokens(STAGES), left.seconds(STAGES, manifest)) == (25, 9000)
    assert left.from_stage("proxies", STAGES) == ", about 2.5 h left"
    finished_run("base-0", "models/base", 2)
    proxies, others = seconds_of("proxies", params, manifest), seconds_of("train", params, manifest)
    assert proxies and others and left.seconds(STAGES, manifest) == pytest.approx(proxies / 2 + 2 * others)
