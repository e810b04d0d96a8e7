"""Targets without a scaling law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from velocitune_core.own_loop import (
    TargetChoiceError,
    targets_from_best_known,
    targets_from_initial_losses,
    targets_from_short_runs,
)

INITIAL = {"cats": 2.0, "dogs": 4.0}


def test_the_lowest_loss_of_a_groups_own_run_is_its_target() -> None:
    runs = {"cats": [1.8, 1.2, 1.3], "dogs": 3.0, "birds": np.array([0.5, 0.7])}
    assert targets_from_short_runs(runs) == {"cats": 1.2, "dogs": 3.0, "birds": 0.5}


def test_a_known_best_value_is_the_target_for_one_group_or_for_all() -> None:
    assert targets_from_best_known(INITIAL, 0.5) == {"cats": 0.5, "dogs": 0.5}
    best = {"cats": 2.5, "dogs": 1.0, "birds": 9.0}
    for values in (best, pd.Series(best)):
        assert targets_from_best_known(INITIAL, values) == {"cats": 2.5, "dogs": 1.0}  # type: ignore[arg-type]


def test_a_share_of_the_initial_loss_remains_above_the_floor() -> None:
    assert targets_from_initial_losses(INITIAL, 0.25) == {"cats": 0.5, "dogs": 1.0}
    assert targets_from_initial_losses(INITIAL, 0.5, floor=1.0) == {"cats": 1.5, "dogs": 2.5}
    assert targets_from_initial_losses(INITIAL, 0.5, floor={"cats": 0.0, "dogs": 2.0}) == {"cats": 1.0, "dogs": 3.0}


def test_what_gives_no_target_is_refused_by_name() -> None:
    with pytest.raises(TargetChoiceError, match="'dogs' has no losses"):
        targets_from_short_runs({"cats": 1.0, "dogs": []})
    with pytest.raises(TargetChoiceError, match="'cats' is nan"):
        targets_from_short_runs({"cats": [1.0, float("nan")]})
    with pytest.raises(TargetChoiceError, match=r"best lacks groups \['dogs'\]"):
        targets_from_best_known(INITIAL, {"cats": 1.0})
    with pytest.raises(TargetChoiceError, match="below no initial loss"):
        targets_from_best_known(INITIAL, 5.0)
    with pytest.raises(TargetChoiceError, match=r"share 1 must be in \(0, 1\)"):
        targets_from_initial_losses(INITIAL, 1)
    with pytest.raises(TargetChoiceError, match=r"initial loss 2.0 of group 'cats' must be above its floor 3.0"):
        targets_from_initial_losses(INITIAL, 0.5, floor=3.0)
    with pytest.raises(TargetChoiceError, match=r"floor lacks groups \['dogs'\]; it has \['cats'\]"):
        targets_from_initial_losses(INITIAL, 0.5, floor={"cats": 0.0})
    with pytest.raises(TargetChoiceError, match="best of 'dogs' is None, but must be a finite number"):
        targets_from_best_known(INITIAL, {"cats": 1.0, "dogs": None})  # type: ignore[dict-item]
    with pytest.raises(TargetChoiceError, match="initial loss of 'dogs' is nan"):
        targets_from_best_known({"cats": 1.0, "dogs": float("nan")}, 0.5)


def test_labels_become_the_names_of_the_reweighter() -> None:
    assert targets_from_short_runs({np.int64(0): 1.0, 1: [2.0]}) == {"0": 1.0, "1": 2.0}
    assert targets_from_best_known({0: 2.0, 1: 3.0}, {"0": 1.0, 1: 2.0}) == {"0": 1.0, "1": 2.0}
    assert targets_from_initial_losses({0: 2.0}, 0.5, floor={np.int64(0): 1.0}) == {"0": 1.5}
