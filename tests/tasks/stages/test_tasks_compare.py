"""Which runs a comparison is made of, in which order, with which targets and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from finished_runs import finish

from tasks.runs.budget import sizes_of
from tasks.runs.compared import parent_of, runs_in_order, side_by_side
from tasks.runs.jobs import compared_job, search_job
from tasks.runs.launch import TrainingFailedError, TrainingStoppedError
from tasks.runs.strategy_options import ablated_targets
from tasks.stages.compare import (
    compared_swarms,
    finished_before,
    fit_compared_targets,
    own_proxies,
    plan_compared,
    plan_of_run,
    train_compared,
)
from tasks.stages.compare import measured as measured_parts
from tasks.stages.weights import SwarmFailedError, train_swarm_run
from tasks.workspace import paths
from tasks.workspace.planned_checks import planned_problems
from velocitune_core.config import Compare, ConfigError, Mixture, Params, parse_params
from velocitune_core.contracts import ComparedRun, LossPoint, ProxyResult, Timings, TrainResult
from velocitune_core.train.job import read_job

PROJECT = Path(__file__).parents[3]


def params(**compare: Any) -> Params:
    tree = yaml.safe_load((PROJECT / "tests/miniature.yaml").read_text())
    runs = {
        "constant": {"strategy": "static", "weights_of": "paper"},
        "found": {"strategy": "doremi"},
        "paper": {"strategy": "velocitune"},
        "static": {"strategy": "static"},
    }
    return parse_params({**tree, "compare": {"seeds": [3, 1], "runs": runs, **compare}})


def test_a_run_comes_after_the_one_that_it_starts_from() -> None:
    labels = ["paper", "static", "constant", "found"]
    assert runs_in_order(params()) == [(label, seed) for seed in (3, 1) for label in labels]


def test_what_a_line_starts_from() -> None:
    settings = params()
    assert parent_of(settings, "constant") == "paper"
    assert parent_of(settings, "found") == "static"  # the baseline is its reference model
    assert parent_of(settings, "paper") is None


def test_a_cpu_trains_one_run_per_core_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.runs.compared.gpu_count", lambda: 0)
    monkeypatch.setattr("tasks.runs.compared.usable_cores", lambda: 6)
    resources = side_by_side(params()).resources
    assert (resources.runs_per_device, resources.threads) == (6, 1)
    tree = params().model_dump()
    chosen = parse_params({**tree, "resources": {"runs_per_device": 2}})
    assert side_by_side(chosen).resources == chosen.resources


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "none"}, "baseline names 'none'"),
        ({"frontier": ["static", "T2"]}, "frontier names T2"),
        ({"seeds": [1, 1]}, "distinct seeds"),
        ({"runs": {"static": {"strategy": "static", "weights_of": "x"}}}, "runs.static.weights_of names 'x'"),
        (
            {
                "runs": {
                    "static": {"strategy": "static"},
                    "a": {"strategy": "static", "weights_of": "static"},
                    "b": {"strategy": "static", "weights_of": "a"},
                }
            },
            "takes its own weights from another run",
        ),
    ],
)
def test_a_comparison_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        params(**changes)


def test_targets_of_the_ablations() -> None:
    initial, fitted = {"a": 4.0, "b": 6.0}, {"a": 2.0, "b": 3.0}
    assert ablated_targets("fitted", initial, fitted, 1) == fitted
    assert ablated_targets("zero", initial, fitted, 1) == {"a": 0.0, "b": 0.0}
    drawn = [ablated_targets("random", initial, fitted, seed) for seed in range(200)]
    assert drawn[7] == ablated_targets("random", initial, fitted, 7) != drawn[8]
    assert all(0 <= each["a"] < 4 and 0 <= each["b"] < 6 for each in drawn)
    assert sum(each["a"] for each in drawn) / 200 == pytest.approx(2.0, abs=0.3)  # uniform below the initial loss


def test_every_seed_of_a_label_may_plan_from_a_swarm_of_its_own(measured: Params) -> None:
    """One swarm for all seeds of `planned`; under `own`, seed 2 draws and orders its runs by itself."""
    runs = {
        "static": {"strategy": "static"},
        "planned": {"strategy": "planned"},
        "own": {"strategy": "planned", "swarm_per_seed": True},
    }
    mixture = Mixture.model_validate({"swarm": {"runs": 4, "fractions": [0.8], "bootstrap": 0}})
    compare = Compare.model_validate({"seeds": [1, 2], "runs": runs})
    settings = measured.model_copy(update={"compare": compare, "mixture": mixture})
    swarms = compared_swarms(settings)
    assert [(name, [job.training.seed for job in jobs]) for name, jobs in swarms.items()] == [
        ("planned", [1] * 4),
        ("own-seed-1", [1] * 4),
        ("own-seed-2", [2] * 4),
    ]
    folders = {name: [job.folder_name for job in jobs] for name, jobs in swarms.items()}
    assert folders["own-seed-1"] == folders["planned"]  # seed 1 of mixture.swarm.seeds: trained once
    assert not set(folders["own-seed-2"]) & set(folders["planned"])
    weights = {name: [job.initial_domain_weights for job in jobs[1:]] for name, jobs in swarms.items()}
    assert not any(each in weights["planned"] for each in weights["own-seed-2"])
    held = {(label, seed): plan_of_run(settings, label, seed) for label in runs for seed in (1, 2)}
    assert [held["static", 1], held["planned", 2], held["own", 2]] == [None, "planned", "own-seed-2"]


def test_what_is_finished_is_counted_with_the_runs_behind_searches_and_labels(measured: Params) -> None:
    """Of planned it is not known, as its weights are not."""
    runs = {
        "static": {"strategy": "static"},
        "found": {"strategy": "odm", "search": 0.5},
        "held": {"strategy": "static", "weights_of": "static"},
        "planned": {"strategy": "planned"},
    }
    swarm = Mixture.model_validate({"swarm": {"runs": 4, "fractions": [0.8], "bootstrap": 0}})
    compare = Compare.model_validate({"seeds": [1, 2], "runs": runs})
    settings = measured.model_copy(update={"compare": compare, "mixture": swarm})
    assert finished_before(settings) == (0, ["planned"])
    manifest, initial, targets = measured_parts()
    for seed in (1, 2):
        finish(compared_job(settings, manifest, initial, targets, "static", seed))
    assert finished_before(settings) == (4, ["planned"])  # held has the recipe of static
    search = search_job(compared_job(settings, manifest, initial, targets, "found", 1), sizes_of(manifest))
    finish(search.model_copy(update={"name": "training-search"}))
    assert finished_before(settings) == (5, ["planned"])  # so has found: its search ends at the weights of static


def test_swarms_per_seed_that_cannot_be_are_refused() -> None:
    runs = {"static": {"strategy": "static", "swarm_per_seed": True}, "a-seed-1": {"strategy": "static"}}
    tree = {"seeds": [1], "runs": runs | {"a": {"strategy": "planned", "swarm_per_seed": True}}}
    assert planned_problems(params(**tree)) == [
        "compare.runs.static.swarm_per_seed: static makes no swarm; leave the key out, or set strategy to planned",
        "compare.runs.a-seed-1: a plan of a has this name; give one of the two labels another name",
    ]
    few = {"strategy": "planned", "swarm_per_seed": True, "options": {"swarm": {"runs": 2, "seeds": [1, 2, 3]}}}
    (problem,) = planned_problems(params(seeds=[1], runs={"static": {"strategy": "static"}, "few": few}))
    assert "compare.runs.few: mixture.swarm.runs: 2 runs are too few for a law of 3 domains" in problem


def test_settings_without_a_swarm_per_seed_are_written_as_before_the_key() -> None:
    assert "swarm_per_seed" not in params().recipe()["compare"]["runs"]["static"]


def test_a_label_that_holds_found_weights_pays_for_what_found_them(
    measured: Params, no_views: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_views("tasks.stages.compare")
    result = TrainResult.model_construct(
        recipe="parent", tokens=2560, seconds=Timings(total=2.0), mean_domain_weights={"code": 0.5, "law": 0.5}
    )
    monkeypatch.setattr("tasks.stages.compare.run_training", lambda *_: result)
    monkeypatch.setattr("tasks.stages.compare.ComparedRun", SimpleNamespace)
    runs = {"static": {"strategy": "static"}, "planned": {"strategy": "planned"}}
    held = {"strategy": "static", "weights_of": "planned"}
    compare = Compare.model_validate({"seeds": [1], "runs": runs | {"held": held}})
    cost = {"search_tokens": 7000, "search_seconds": 5.0, "search_runs": {"swarm": 5.0}}
    parent = ComparedRun.model_construct(label="planned", seed=1, result=result, uses_targets=False, **cost)
    params = measured.model_copy(update={"compare": compare})
    found = train_compared.fn(params, "held", 1, parent, None, None)
    assert (found.search_tokens, found.search_seconds) == (7000 + 2560, 7.0)
    assert found.search_runs == {"swarm": 5.0, "parent": 2.0}


def test_the_stage_watches_what_targets_of_a_label_are_made_from() -> None:
    stages = yaml.safe_load((PROJECT / "comparison/dvc.yaml").read_text())["stages"]
    read = {"proxies.evaluations", "proxies.fractions", "proxies.seeds", "targets"}
    assert read <= set(stages["compare"]["params"])


def test_own_targets_leave_no_retained_sets_to_be_found_after_the_swarm() -> None:
    objective: dict[str, Any] = {"forgetting": 0.05}
    targets = {"fractions": [0.1, 0.2, 0.3]}
    label = {"strategy": "planned", "targets": targets, "options": {"objective": objective}}
    runs = {"static": {"strategy": "static"}, "a": label}
    (problem,) = planned_problems(params(seeds=[1], runs=runs))
    assert problem.startswith("compare.runs.a.targets: which sets mixture.objective.forgetting is for")
    objective["retained"] = params().training_domains[:1]
    assert planned_problems(params(seeds=[1], runs=runs)) == []


def one_proxy(fraction: float) -> dict[str, Any]:
    return {"strategy": "velocitune", "targets": {"fractions": [fraction], "points": "intermediate"}}


def proxy_of(fraction: float, token_budget: int = 2560) -> ProxyResult:
    """A proxy of four measurements; `code` follows 2 + 8·D^−½, `law` 3 + 8·D^−½."""
    tokens = round(fraction * token_budget)
    measured = [tokens * part // 4 for part in (1, 2, 3, 4)]
    points = [
        LossPoint(step=part, tokens=at, losses={"code": 2 + 8 * at**-0.5, "law": 3 + 8 * at**-0.5})
        for part, at in enumerate(measured, 1)
    ]
    name = f"proxy-{fraction:g}-seed-1".replace(".", "_")
    common = {"name": name, "fraction": fraction, "seed": 1, "precision": "float32", "steps": 4, "tokens": tokens}
    return ProxyResult.model_validate({**common, "points": points, "seconds": 1.0})


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_a_label_may_have_targets_from_one_proxy_and_pays_for_that_alone(
    measured: Params, no_views: Callable[[str], None]
) -> None:
    no_views("tasks.stages.compare")
    for fraction in measured.proxies.fractions:  # 0.2, 0.4 and 0.8 of the budget
        proxy = proxy_of(fraction)
        proxy.write(paths.PROXIES / f"{proxy.name}.json")
    runs = {"static": {"strategy": "static"}, "shared": one_proxy(0.2), "own": one_proxy(0.3)}
    held = {"strategy": "static", "weights_of": "shared"}
    compare = Compare.model_validate({"seeds": [1], "runs": runs | {"held": held}})
    params = measured.model_copy(update={"compare": compare})
    trained = own_proxies(params)
    assert {label: [job.name for job in jobs] for label, jobs in trained.items()} == {
        "shared": [],
        "own": ["proxy-0_3-seed-1"],
    }
    assert fit_compared_targets.fn(params, "own", [proxy_of(0.3)]).tokens == 768
    own = fit_compared_targets.fn(params, "shared", [])
    assert own.tokens == 512  # of 3,584 that all three took
    reached = {"code": 2 + 8 * 2560**-0.5, "law": 3 + 8 * 2560**-0.5}
    assert own.targets.losses() == pytest.approx(reached, abs=0.01)
    found = train_compared.fn(params, "shared", 1, None, None, None, own)
    assert (found.uses_targets, found.proxy_tokens, found.proxy_seconds) == (True, 512, 1.0)
    (job,) = (read_job(path) for path in paths.RUNS.glob("shared-seed-1-*/job.json"))
    assert job.strategy.options["target_loss"] == own.targets.losses()
    again = train_compared.fn(params, "held", 1, found, None, None)
    assert (again.uses_targets, again.proxy_tokens) == (True, 512)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_a_planned_label_is_steered_along_the_course_of_its_own_proxy(
    measured: Params, no_views: Callable[[str], None]
) -> None:
    no_views("tasks.stages.compare")
    no_views("tasks.stages.proxies")
    proxy = proxy_of(0.2)
    proxy.write(paths.PROXIES / f"{proxy.name}.json")
    swarm = {"runs": 4, "fractions": [0.2], "bootstrap": 0}
    targets = one_proxy(0.2)["targets"]
    steered = {"strategy": "planned", "swarm_per_seed": True, "targets": targets}
    steered |= {"options": {"swarm": swarm, "steer": {"step_size": 30.0, "gap_policy": "freeze"}}}
    compare = Compare.model_validate({"seeds": [1], "runs": {"static": {"strategy": "static"}, "steered": steered}})
    params = measured.model_copy(update={"compare": compare})
    own = fit_compared_targets.fn(params, "steered", [])
    ((name, jobs),) = compared_swarms(params).items()
    plan = plan_compared.fn(params, name, jobs, [train_swarm_run.fn(job, params) for job in jobs], own)
    assert name == "steered-seed-1" and plan.planned is not None and plan.steering is not None
    assert [progress for progress, _ in plan.steering.course["code"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    found = train_compared.fn(params, "steered", 1, None, plan, None, own)
    first, *_, last = found.result.domain_weights
    assert found.result.strategy == "planned_course"
    assert first.weights == pytest.approx(plan.domain_weights) and last.weights != first.weights
    assert (found.uses_targets, found.proxy_tokens) == (True, 512)
    trained = sum(run.tokens for run in plan.own_runs)  # without the proxy
    assert found.search_tokens == pytest.approx(trained, rel=0.15)  # operations, which include evaluations


@pytest.mark.usefixtures("forked_program")
def test_a_label_is_planned_from_the_runs_that_are_there(
    measured: Params, no_views: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_views("tasks.stages.compare")
    no_views("tasks.stages.proxies")
    label = {"strategy": "planned", "options": {"swarm": {"runs": 4, "fractions": [0.2], "bootstrap": 0}}}
    compare = Compare.model_validate({"seeds": [1], "runs": {"static": {"strategy": "static"}, "planned": label}})
    params = measured.model_copy(update={"compare": compare})
    jobs, failed = compared_swarms(params)["planned"], TrainingFailedError("ended with status 1")
    results = [train_swarm_run.fn(job, params) for job in jobs[:3]]
    plan = plan_compared.fn(params, "planned", jobs, [*results, failed])
    assert plan.planned is not None and plan.planned.missing_runs == [jobs[-1].name]
    with pytest.raises(SwarmFailedError, match=r"swarm-0_2-seed-1-02, swarm-0_2-seed-1-03 failed, .* 3 runs, not 2"):
        plan_compared.fn(params, "planned", jobs, [*results[:2], failed, failed])


def test_own_targets_are_fitted_to_the_proxies_that_are_there(
    measured: Params, no_views: Callable[[str], None]
) -> None:
    for fraction in measured.proxies.fractions:
        proxy = proxy_of(fraction)
        proxy.write(paths.PROXIES / f"{proxy.name}.json")
    label = {"strategy": "velocitune", "targets": {"fractions": [0.2, 0.4, 0.6, 0.8]}}
    compare = Compare.model_validate({"seeds": [1], "runs": {"static": {"strategy": "static"}, "own": label}})
    params = measured.model_copy(update={"compare": compare})
    own = fit_compared_targets.fn(params, "own", [TrainingFailedError("ended with status 1")])
    assert own.targets.missing_proxies == ["proxy-0_6-seed-1"]
    with pytest.raises(TrainingStoppedError):
        fit_compared_targets.fn(params, "own", [TrainingStoppedError("ended with status 75")])
