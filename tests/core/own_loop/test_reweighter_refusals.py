"""What a reweighter refuses or logs: losses, batches, targets and states that cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from reweighters import INITIAL, TARGETS, WEIGHTS, reweighter

from velocitune_core import VelocityReweighter
from velocitune_core.own_loop import ReweighterError
from velocitune_core.strategies import Strategy, StrategyError


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"cats": 1.0}, "'dogs'"),
        ({"cats": float("nan"), "dogs": 1.0}, "'cats' is nan"),
        ({"cats": None, "dogs": 1.0}, "'cats' is None"),
        ({}, "lack group"),
        (None, "losses None must be a mapping"),
    ],
)
def test_losses_that_no_update_can_use_leave_the_weights_as_they_are(losses: dict[str, float], named: str) -> None:
    ours = reweighter()
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.update(losses)
    assert ours.state_dict() == before


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ReweighterError, match="'velocitune' needs target_losses: give the loss"):
        VelocityReweighter(WEIGHTS, initial_losses=INITIAL)
    with pytest.raises(ReweighterError, match=r"initial_losses lacks groups \['dogs'\]"):
        VelocityReweighter(WEIGHTS, initial_losses={"cats": 1.0}, target_losses=TARGETS)
    with pytest.raises(StrategyError, match="lower target for the domain in target_losses"):
        VelocityReweighter(WEIGHTS, initial_losses=TARGETS, target_losses=INITIAL, options={"gap_policy": "error"})
    with pytest.raises(ReweighterError, match=r"'doremi' needs excess: give observe_batch\(…, excess=…\)"):
        reweighter("doremi").observe_batch({"cats": 1.0}, {"cats": 1})
    with pytest.raises(ReweighterError, match="total_steps"):
        VelocityReweighter(WEIGHTS, strategy="ado")
    with pytest.raises(ReweighterError, match="must lie after step 8"):
        ours = reweighter()
        ours.update(INITIAL, step=8)
        ours.update(INITIAL, step=8)
    with pytest.raises(ReweighterError, match=r"'dbl'.*'static'"):
        reweighter("static").load_state_dict(reweighter("dbl").state_dict())
    with pytest.raises(ReweighterError, match="birds"):
        reweighter("odm").observe_batch({"birds": 1.0}, {"cats": 1})


@pytest.mark.parametrize(
    ("losses", "excess", "step", "named"),
    [
        ({"cats": float("nan"), "dogs": 1.0}, None, 6, "'cats' is nan"),
        ({"cats": 1.0, "dogs": float("inf")}, None, 6, "'dogs' is inf"),
        ({"cats": 1.0}, None, 6, "lack group 'dogs'"),
        ({"cats": 1.0, "dogs": 1.0}, {"cats": 1.0}, 6, "lack group 'dogs'"),
        ({"cats": 1.0, "dogs": 1.0}, None, 5, "step 5 must lie after step 5"),
    ],
)
def test_batches_that_cannot_be_used_change_nothing(
    losses: dict[str, float], excess: dict[str, float] | None, step: int, named: str
) -> None:
    ours = reweighter("odm")
    ours.observe_batch({"cats": 1.0}, {"cats": 8, "dogs": 0}, step=5)
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.observe_batch(losses, {"cats": 6, "dogs": 2}, excess=excess, step=step)
    assert ours.state_dict() == before


def test_targets_that_nothing_would_use_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ReweighterError, match=r"options have \['target_loss'\]"):
        reweighter(target_loss=TARGETS)
    with pytest.raises(ReweighterError, match=r"target_losses has groups \['birds'\]"):
        VelocityReweighter(WEIGHTS, initial_losses=INITIAL, target_losses=TARGETS | {"birds": 1.0})
    reweighter("static")
    assert "strategy 'static' takes no targets" in caplog.text


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None, "1.5", [1.0, 2.0]])
@pytest.mark.parametrize("field", ["initial_losses", "target_losses"])
def test_losses_that_would_stop_the_first_update_are_refused_before_the_training(field: str, loss: Any) -> None:
    losses = {"initial_losses": INITIAL, "target_losses": TARGETS}
    losses[field] = {**losses[field], "dogs": loss}
    with pytest.raises(ReweighterError, match=rf"{field}\['dogs'\] is .* but must be a finite number"):
        VelocityReweighter(WEIGHTS, **losses)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"initial_weights": {"cats": None, "dogs": 1}}, r"initial_weights\['cats'\] is None, but must be a finite"),
        ({"initial_weights": [1, 2]}, r"initial_weights \[1, 2\] must be a mapping"),
        ({"initial_weights": [1] * 1000}, r"initial_weights \[1, 1, 1, 1, 1, 1, \.\.\.\] must be a mapping"),
        ({"initial_weights": pd.Series([1.0, 2.0], index=["a", "a"])}, r"has labels \['a', 'a'\], .* the same name"),
        ({"initial_weights": {1: 1.0, "1": 2.0}}, r"initial_weights has labels \[1, '1'\], .* the same name"),
        ({"options": {"step_size": "two"}}, r"options\['step_size'\] is 'two', .* leave it out for 1.0"),
        ({"options": {"step_size": None}}, r"options\['step_size'\] is None"),
        ({"strategy": "ado", "options": {"start_steps": 2.5}}, r"options\['start_steps'\] 2.5 must be an integer"),
        ({"strategy": "dbl", "options": {"clamp": "no"}}, r"options\['clamp'\] 'no' must be True or False"),
        (
            {"strategy": "temperature", "options": {"domain_tokens": {"cats": 1, "dogs": "many"}}},
            r"options\['domain_tokens'\]\['dogs'\] is 'many'",
        ),
        ({"options": ["step_size"]}, r"options \['step_size'\] must be a mapping from option to value"),
        ({"strategy": Strategy}, r"strategy <class .*Strategy'> must be a name, or .* 'module:Class'"),
        ({"total_steps": 10.5}, "total_steps 10.5 must be an integer"),
        ({"total_steps": 0}, "total_steps 0 must be at least 1"),
    ],
)
def test_other_kinds_of_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ReweighterError, match=named):
        VelocityReweighter(
            **{"initial_weights": WEIGHTS, "initial_losses": INITIAL, "target_losses": TARGETS} | arguments
        )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({}, r"lacks \['strategy', 'updated_at', 'observed_at', 'state'\]"),
        ({"state": {}}, "cannot be loaded: KeyError: 'weights'"),
        ({"state": None}, "cannot be loaded: AttributeError"),
        ({"state": {"weights": {"cats": 0.5, "dogs": 0.2, "birds": 0.3}}}, r"\['birds', 'cats', 'dogs'\], this rew"),
        ({"state": {"weights": {"cats": 1.0}}}, r"it has groups \['cats'\]"),
        ({"state": {"weights": {"cats": 0.5, "dogs": 0.2}}}, "set the weights"),
        ({"state": {"weights": {"cats": 0.5, "dogs": None}}}, "set the weights"),
        ({"updated_at": 2.5}, "updated_at of the saved state 2.5 must be an integer"),
    ],
)
def test_a_state_of_another_reweighter_is_refused_and_changes_nothing(changed: dict[str, Any], named: str) -> None:
    ours = reweighter()
    ours.update(INITIAL, step=8)
    before = ours.state_dict()
    with pytest.raises(ReweighterError, match=named):
        ours.load_state_dict({**before, **changed} if changed else {})
    with pytest.raises(ReweighterError, match="saved state lacks"):
        ours.load_state_dict(json.dumps(before))  # type: ignore[arg-type]
    assert ours.state_dict() == before


@pytest.mark.parametrize(("strategy", "vain"), [("odm", "update"), ("velocitune", "observe_batch"), ("static", None)])
def test_a_call_that_changes_no_weight_is_logged_once(
    strategy: str, vain: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ours = reweighter(strategy)
    caplog.clear()
    for _ in range(3):
        ours.update(INITIAL)
        ours.observe_batch(INITIAL, {"cats": 1, "dogs": 1})
    expected = [f"{vain} changes no weight under strategy '{strategy}'"] if vain else []
    assert [message.partition(":")[0] for message in caplog.messages] == expected


def test_a_group_without_a_gap_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    VelocityReweighter(WEIGHTS, initial_losses=INITIAL, target_losses=INITIAL, options={"gap_policy": "hold"})
    assert "cats (target 2.000, initial 2.000)" in caplog.text
