"""Contradictions are found before anything runs, all in one message, each with its field, its value and the fix."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from velocitune_core.mixture_law.objective import Objective, ObjectiveError

DOMAINS, SETS = ("code", "law", "web"), ("code", "law", "target")
STATIC = {"code": 0.5, "law": 0.3, "web": 0.2}
PAGES = {"code": 300.0, "law": 200.0, "web": 100.0}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"worse_than_static": "0.1"}, "objective.worse_than_static is '0.1'; give a number or {name: number}"),
    ({"least_share": {"code": None}}, "objective.least_share of code is None; give a number, or leave code out"),
    ({"initial_weights": [0.5, 0.3, 0.2]}, "objective.initial_weights is of type list; give {name: number}"),
    ({"average": None}, "objective.average is None; use 'macro', 'by_size', the name of one, or shares by set"),
    ({"average": {"code": "1"}}, "objective.average is {'code': '1'}; give {set: share}, with numbers as shares"),
    ({"over": 3}, "objective.over is 3; give a list of sets"),
    ({"token_budget": "1e9"}, "objective.token_budget is '1e9'; give a number of tokens"),
    (
        {"average": "macros"},
        "objective.average 'macros' is not known (did you mean macro?); use by_size, macro, or shares",
    ),
    ({"average": {"cod": 1.0}}, "objective.average names cod (did you mean code?); sets are code, law, target"),
    (
        {"average": {"code": 0.0}},
        "objective.average is {'code': 0.0}; shares are at least 0, and one of them is above 0",
    ),
    ({"averages": {"mine": {"code": -1.0}}}, "objective.averages.mine is {'code': -1.0}; shares are at least 0"),
    (
        {"averages": {"macro": {"code": 1.0}}},
        "objective.averages has one named 'macro', which has a meaning of its own",
    ),
    ({"over": ["web"]}, "objective.over names web; sets are code, law, target"),
    ({"over": []}, "objective.over is empty; name a set, or leave it out"),
    ({"retained": "code"}, "objective.retained is the text 'code'; give a list of sets"),
    ({"average": "by_size", "initial_weights": None}, "there are no sizes; give objective.sizes"),
    (
        {"initial_weights": {"code": 0.5, "law": 0.5}},
        "objective.initial_weights leaves out web; give every domain a share",
    ),
    (
        {"initial_weights": {**STATIC, "blogs": 0.0}},
        "objective.initial_weights names blogs; domains are code, law, web",
    ),
    (
        {"initial_weights": {**STATIC, "web": 0.4}},
        "objective.initial_weights sum to 1.2; they are shares, which sum to 1",
    ),
    ({"initial_weights": {**STATIC, "web": math.nan}}, "objective.initial_weights of web is nan; give a number"),
    (
        {"initial_weights": None, "worse_than_static": 0.0},
        "compares with static training; give objective.initial_weights",
    ),
    ({"worse_than_static": {"web": 0.0}}, "objective.worse_than_static names web; sets are code, law, target"),
    (
        {"averages_worse_than_static": {"size": 0.0}},
        "objective.averages_worse_than_static names size (did you mean by_size?); averages are by_size",
    ),
    (
        {"forgetting": 0.05},
        "objective.forgetting is one number, but no set is retained; name them in objective.retained",
    ),
    (
        {"forgetting": {"law": 0.05}},
        "objective.forgetting needs the initial loss of law; give it in objective.initial_losses",
    ),
    (
        {"epochs": 2.0, "domain_tokens": PAGES},
        "objective.epochs needs the tokens of the planned run; give objective.token",
    ),
    ({"epochs": 2.0, "token_budget": 100}, "objective.epochs needs the tokens of one epoch of code, law, web"),
    (
        {"epochs": 1.5, "domain_tokens": PAGES, "token_budget": 1000},  # 1.5 · 600 of 1000
        "objective.epochs fills 0.9 of the run: at most 900 tokens for a token_budget of 1,000; allow 1.11 times",
    ),
    ({"epochs": 0.0}, "objective.epochs is 0; it must be above 0"),
    ({"least_share": {"code": 0.6, "law": 0.5}}, "objective.least_share sums to 1.1 over domains; it can be at most 1"),
    (
        {"least_share": 0.2, "largest_share": {"web": 0.1}},
        "least_share of web is 0.2, above its largest_share 0.1; lower",
    ),
    ({"largest_share": 0.3}, "objective.largest_share sums to 0.9 over domains and leaves a part of the run empty"),
    ({"largest_share": 1.5}, "objective.largest_share is 1.5; a share is at most 1"),
    ({"least_share": -0.1}, "objective.least_share is -0.1; it cannot be negative"),
    (
        {"least_share": {"web": 0.3}, "epochs": {"web": 2.0}, "domain_tokens": PAGES, "token_budget": 1000},
        "objective.least_share of web is 0.3, but objective.epochs allows 0.2 of the run; allow it more epochs",
    ),
    (
        {"largest_share": {"code": 0.5}, "epochs": {"law": 1, "web": 1}, "domain_tokens": PAGES, "token_budget": 1000},
        "objective.largest_share and objective.epochs together fill at most 0.8 of the run; raise one of them",
    ),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_contradictions_are_named_before_anything_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=re.escape(message)):
        Objective(**{"initial_weights": STATIC, **fields}).check(DOMAINS, SETS)


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(ObjectiveError) as caught:
        Objective(average="best", initial_weights=STATIC, forgetting=0.1, over=["sets"]).check(DOMAINS, SETS)
    assert len(str(caught.value).splitlines()) == 3


def test_averages_by_hand() -> None:
    objective = Objective(
        initial_weights=STATIC, averages={"mine": {"target": 3.0, "law": 1.0}}, over=["code", "target"]
    )
    objective.check(DOMAINS, SETS)
    assert objective.average_names() == ["macro", "by_size", "mine"]
    assert objective.average_shares("macro", DOMAINS, SETS) == {"code": 0.5, "law": 0.0, "target": 0.5}
    assert objective.average_shares("by_size", DOMAINS, SETS) == pytest.approx(
        {"code": 0.625, "law": 0.375, "target": 0.0}
    )
    assert objective.average_shares("mine", DOMAINS, SETS) == {"code": 0.0, "law": 0.25, "target": 0.75}
    sized = Objective(sizes={"code": 1.0, "law": 3.0, "web": 9.0})
    assert sized.average_shares("by_size", DOMAINS, SETS) == {"code": 0.25, "law": 0.75, "target": 0.0}


def test_written_weights_need_not_sum_to_1_exactly() -> None:
    rounded = Objective(initial_weights={"code": 0.333, "law": 0.333, "web": 0.333})
    rounded.check(DOMAINS, SETS)
    assert rounded.initial_shares() == pytest.approx(dict.fromkeys(DOMAINS, 1 / 3))
