"""Runs that a plan counts, and those that are finished already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planned_samples
import pytest
from finished_runs import finish
from plan_samples import SEVEN_BILLION, plan_of, write_config
from tiny import write_inputs

from tasks.planning.inputs import read_inputs
from tasks.planning.view import print_plan
from tasks.runs.jobs import compared_job, proxy_jobs
from tasks.runs.own_targets import finished_own_targets, own_proxy_jobs
from tasks.runs.planned import plan_inputs
from tasks.runs.steering import planned_job
from tasks.runs.swarm import swarm_jobs
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture
from velocitune_core.config import parse_params
from velocitune_core.contracts import DomainTarget, LossPoint, SwarmRound
from velocitune_core.model.io import model_digest


@pytest.mark.usefixtures("workspace")
def test_a_search_and_its_reference_are_counted(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000
    settings["strategy"] = {"name": "doremi", "options": {}}
    found = {stage.name: stage.runs for stage in plan_of(settings).stages[-2:]}
    assert {name: [(run.name, run.steps, run.reference) for run in runs] for name, runs in found.items()} == {
        "weights": [("training-reference", 62, False), ("training-search", 62, True)],
        "train": [("training", 62, False)],
    }
    settings["strategy"] = {"name": "recommended", "options": {}, "search": 0.5}
    assert [[run.steps for run in stage.runs] for stage in plan_of(settings).stages[-2:]] == [[31], [62]]


@pytest.mark.usefixtures("workspace")
def test_a_swarm_is_counted_without_the_static_run_that_is_a_proxy(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    write_config("models/small", SEVEN_BILLION | {"num_hidden_layers": 2})
    settings["training"]["token_budget"] = 64_000
    settings["strategy"] = {"name": "planned", "options": {}}
    plan = plan_of(settings)
    stages = {stage.name: (stage.runs, price) for stage, price in zip(plan.stages, plan.prices, strict=True)}
    runs, own = stages["weights"]
    assert [run.steps for run in runs] == [12] * 9  # 2(2 + 3) runs of a fifth of 62 steps
    assert [run.steps for run in stages["train"][0]] == [62]
    settings["mixture"]["swarm"] = {"rounds": {"first": 6}}
    rounds = plan_of(settings)
    by_name = {stage.name: price for stage, price in zip(rounds.stages, rounds.prices, strict=True)}
    assert by_name["weights"].flops == pytest.approx(own.flops * 5 / 9)
    assert by_name["weights, at most"].flops == pytest.approx(own.flops * 4 / 9)
    assert rounds.total.flops == pytest.approx(plan.total.flops)  # at most
    least = rounds.total.flops - by_name["weights, at most"].flops
    assert any(f"with its first round alone, {least:.2e} FLOPs" in each for each in rounds.assumptions)
    settings["mixture"]["swarm"] = {"model": "models/small"}  # which no proxy trains
    small = plan_of(settings)
    (price,) = [price for stage, price in zip(small.stages, small.prices, strict=True) if stage.name == "weights"]
    assert price.flops / 10 / (own.flops / 9) == pytest.approx(0.099, abs=0.001)  # 2 of 32 layers, embedding and head
    settings["model"]["path"] = "models/base"
    shape = {"hidden_size": 48, "intermediate_size": 128, "layers": 2, "heads": 3}
    settings["base"] = {
        "vocabulary_size": 1024,
        **shape | {"hidden_size": 96, "intermediate_size": 256, "layers": 4},
        "sibling": shape,
        "training": settings["training"],
    }
    settings["mixture"]["swarm"] = {"model": "models/base/sibling"}
    embedded = {stage.name: stage.runs for stage in plan_of(settings).stages}
    assert [run.work for run in embedded["base"]] == [1.0, pytest.approx(0.19, abs=0.02)]  # a fifth
    assert {run.work for run in embedded["weights"]} == {embedded["base"][1].work}
    settings["compare"] = {"runs": {"static": {"strategy": "static"}, "planned": {"strategy": "planned"}}}
    compared = plan_of(settings, compare=True).stages[-1].runs
    assert [run.name for run in compared].count("planned-seed-1") == 1 and len(compared) == 10 + 2 * 3


@pytest.mark.usefixtures("workspace")
def test_finished_runs_of_the_pipeline_are_marked(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that a comparison has trained: the same recipe under another name."""
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    settings["compare"] = {"seeds": [1], "runs": {"static": {"strategy": "static"}}}
    settings["strategy"] = {"name": "static"}
    params = parse_params(settings)

    def finished() -> dict[str, int]:
        return {stage.name: stage.finished for stage in plan_of(settings).stages}

    assert finished() == {"initial": 0, "proxies": 0, "train": 0}
    inputs, digest = read_inputs(params), model_digest(Path("made/model"))
    finish(proxy_jobs(params, inputs.manifest, digest)[0])
    finish(compared_job(params, inputs.manifest, inputs.initial, inputs.targets, "static", 1, digest))
    assert finished() == {"initial": 0, "proxies": 1, "train": 1}
    print_plan(plan_of(settings))
    said = " ".join(capsys.readouterr().out.split())
    assert "1 done of 3" in said and "1 done of 1" in said
    assert "in the table, though they are done and not repeated: 1 of proxies and 1 of train" in said
    settings["training"]["seed"] = 2
    assert finished() == {"initial": 0, "proxies": 1, "train": 0}


@pytest.mark.usefixtures("workspace")
def test_finished_runs_of_a_comparison_are_not_counted(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    settings["compare"] = {
        "seeds": [1, 2],
        "runs": {
            "static": {"strategy": "static"},
            "doremi": {"strategy": "doremi"},
            "velocitune": {"strategy": "velocitune"},
            "held": {"strategy": "static", "weights_of": "velocitune"},
        },
    }
    params = parse_params(settings)
    everything = plan_of(settings, compare=True)
    names = {run.name for run in everything.stages[-1].runs}
    expected = {f"{label}-seed-{seed}" for label in settings["compare"]["runs"] for seed in (1, 2)}
    assert names == expected | {"doremi-seed-1-search", "doremi-seed-2-search"}
    inputs = read_inputs(params)
    digest = model_digest(Path("made/model"))
    for label in ("static", "velocitune"):
        job = compared_job(params, inputs.manifest, inputs.initial, inputs.targets, label, 1, digest)
        finish(job)
    less = plan_of(settings, compare=True)
    gone = {"static-seed-1", "velocitune-seed-1", "held-seed-1"}  # which holds the weights of a static run here
    assert less.finished == 3
    print_plan(less)
    said = " ".join(capsys.readouterr().out.split())
    assert "left out of compare, as they are finished: 3 runs" in said and "not repeated" not in said
    assert names - {run.name for run in less.stages[-1].runs} == gone


@pytest.mark.usefixtures("workspace")
def test_a_finished_plan_is_priced_as_finished_and_a_plan_of_other_runs_is_not(settings: dict[str, Any]) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    swarm: dict[str, Any] = {"fractions": [0.3], "rounds": {"first": 4, "runs": 2}}
    runs = {"static": {"strategy": "static"}, "plan": {"strategy": "planned", "options": {"swarm": swarm}}}
    settings["compare"] = {"seeds": [1], "runs": runs}

    def missing() -> set[str]:
        return {run.name for run in plan_of(settings, compare=True).stages[-1].runs}

    named = {f"swarm-0_3-seed-1-{number:02d}" for number in range(10)}
    assert missing() == named | {"static-seed-1", "plan-seed-1"}
    params = parse_params(settings)
    inputs = read_inputs(params)
    jobs = swarm_jobs(params, inputs.manifest, compared_mixture(params, "plan", 1))
    found = planned_samples.planned(dict.fromkeys(settings["domains"], 0.5))
    assert found.planned is not None
    pairs = zip(found.planned.runs, jobs, strict=False)
    made = [run.model_copy(update={"folder": job.folder_name}) for run, job in pairs]
    numbers = dict.fromkeys(("share", "predicted", "regret", "spread", "tolerance", "expected"), 0.1)
    rounds = [SwarmRound(runs=4, settled=True, further=0, **numbers)]
    planned = found.planned.model_copy(update={"runs": made, "rounds": rounds})
    mixture = compared_mixture(params, "plan", 1)
    decided = plan_inputs(params, mixture, jobs, inputs.manifest, inputs.initial, inputs.targets)
    found = found.model_copy(update={"planned": planned, "inputs": decided})
    found.write(paths.COMPARISON_REPORT / paths.PLANS / "plan.json")
    job = compared_job(params, inputs.manifest, inputs.initial, inputs.targets, "plan", 1)
    for each in (*jobs, planned_job(job, found, {}, inputs.initial)):
        finish(each)
    assert missing() == {"static-seed-1"}
    wanted: dict[str, Any] = runs["plan"]["options"]
    for changed in (
        {"swarm": swarm | {"min_share": 0.1}},
        {"swarm": swarm | {"law": "bimix"}},
        {"swarm": swarm | {"bootstrap": 50}},
        {"swarm": swarm | {"rounds": {"first": 4, "runs": 2, "tolerance": 0.1}}},
        {"objective": {"average": "by_size"}},
        {"objective": {"worse_than_static": 0.1}},
        {"objective": {"largest_share": 0.9}},
    ):
        runs["plan"]["options"] = wanted | changed
        assert "plan-seed-1" in missing(), changed
    runs["plan"]["options"] = wanted
    settings["mixture"]["initial_domain_weights"] = {"code": 0.4, "law": 0.6}
    assert "plan-seed-1" in missing()
    settings["mixture"]["initial_domain_weights"] = None
    inputs.targets.write(paths.TARGETS)
    assert missing() == {"static-seed-1"}
    others = {name: DomainTarget(target=0.9) for name in settings["domains"]}
    inputs.targets.model_copy(update={"domains": others}).write(paths.TARGETS)
    assert "plan-seed-1" in missing()


@pytest.mark.usefixtures("workspace")
def test_finished_runs_under_own_targets_are_not_counted(settings: dict[str, Any]) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    own = {"fractions": [0.4, 0.6, 0.8], "law": "chinchilla"}  # two of them are proxies of the pipeline
    runs = {"static": {"strategy": "static"}, "own": {"strategy": "velocitune", "targets": own}}
    settings["compare"] = {"seeds": [1], "runs": runs | {"held": {"strategy": "static", "weights_of": "own"}}}
    params = parse_params(settings)
    inputs = read_inputs(params)

    def missing() -> set[str]:
        return {run.name for run in plan_of(settings, compare=True).stages[-1].runs}

    everything = {"static-seed-1", "own-seed-1", "held-seed-1", "proxy-0_6-seed-1"}
    assert missing() == everything
    alone = own_proxy_jobs(params, "own", inputs.manifest)
    for job in (*alone, *(job for job in proxy_jobs(params, inputs.manifest) if job.fraction > 0.2)):
        reached = dict.fromkeys(settings["domains"], 1 + 4 * job.total_steps**-0.5)
        finish(job, points=[LossPoint(step=job.total_steps, tokens=job.total_steps * 1024, losses=reached)])
    assert missing() == everything - {"proxy-0_6-seed-1"}
    fitted = finished_own_targets(params, "own", inputs.manifest, inputs.initial)
    assert fitted is not None
    finish(compared_job(params, inputs.manifest, inputs.initial, fitted.targets, "own", 1))
    assert missing() == {"static-seed-1", "held-seed-1"}
