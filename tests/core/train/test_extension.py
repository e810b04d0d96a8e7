"""How many first steps two recipes have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import job as tiny_job

from velocitune_core.train.extension import common_steps
from velocitune_core.train.job import TrainJob

WSD = {"kind": "wsd", "warmup_steps": 4, "decay_fraction": 0.2}


def make_job(**changes: Any) -> TrainJob:
    tree = tiny_job(Path("inputs"), Path("run"), **{"training__schedule": WSD, **changes})
    return TrainJob.model_validate(tree, strict=False)


def test_a_longer_and_a_shorter_run_share_the_stable_part() -> None:
    short, long = make_job(total_steps=20), make_job(total_steps=40)
    assert common_steps(short.recipe(), long) == (16, "")
    assert common_steps(long.recipe(), short) == (16, "")
    assert common_steps(short.recipe(), short) == (19, "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training__seed": 2}, "training.seed: 2 → 1 differs"),
        ({"strategy__options__target_loss": {"code": 2.5, "general": 3.0}}, "strategy.options.target_loss.code"),
        ({"evaluation__every_steps": 10}, "evaluation.every_steps: 10 → 5 differs"),
        ({"fraction": 0.5}, "fraction: 0.5 → 1.0 differs"),
        ({"training__schedule": {**WSD, "warmup_steps": 5}}, "warm-up over 5 and 4 steps"),
    ],
)
def test_what_decides_a_step_must_be_equal(changes: dict[str, Any], reason: str) -> None:
    steps, why = common_steps(make_job(total_steps=20, **changes).recipe(), make_job(total_steps=40))
    assert steps == 0 and reason in why


@pytest.mark.parametrize(
    ("strategy", "depends"),
    [
        ({"name": "static", "options": {}}, False),
        ({"name": "uniform", "options": {}}, False),
        ({"name": "odm", "options": {}}, False),
        ({"name": "ado", "options": {}}, True),
        ({"name": "ado", "options": {"start_steps": 4, "refit_every_steps": 2}}, False),
        ({"name": "tests_own:Mine", "options": {}}, True),  # unless its author says otherwise
    ],
)
def test_a_strategy_may_depend_on_the_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: dict[str, Any], depends: bool
) -> None:
    (tmp_path / "tests_own.py").write_text(
        "from velocitune_core.strategies import Strategy\nclass Mine(Strategy): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    steps, why = common_steps(make_job(total_steps=20, strategy=strategy).recipe(), make_job(strategy=strategy))
    assert (steps, "depend on the number of steps" in why) == ((0, True) if depends else (16, False))


@pytest.mark.parametrize(
    "recipe", [{}, {"training": {}}, {"training": {"schedule": {"kind": "no"}}, "total_steps": "x"}]
)
def test_a_recipe_of_another_version_has_nothing_in_common(recipe: dict[str, Any]) -> None:
    assert common_steps(recipe, make_job())[0] == 0
    whole = make_job().recipe()
    assert common_steps(
        {**whole, **recipe, "training": {**whole["training"], "schedule": {"kind": "no"}}}, make_job()
    ) == (
        0,
        "its recipe is of another version",
    )
