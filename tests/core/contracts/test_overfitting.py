"""Domains whose loss rises while their weight grows: the definition, and real runs with and without such domains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.contracts import LossPoint, Overfitting, WeightPoint, overfitted_domains
from velocitune_core.contracts.overfitting import GROWTH, RISE_NATS

# Nine domains, 24.9 M tokens, 30.5 M parameters, a base model that has seen python, perl and general 15 times:
# `velocitune`, the search behind `recommended`, and a static run.
RUNS = json.loads((Path(__file__).parent / "overfitted_runs.json").read_text(encoding="utf-8"))
History = tuple[list[LossPoint], list[WeightPoint]]


def history(losses: dict[str, list[float]], weights: dict[str, list[float]], steps: list[int]) -> History:
    """Evaluations at `steps`, with the weights of the batches before each."""
    began = [0, *steps[:-1]]
    return (
        [
            LossPoint(step=step, tokens=step, losses={name: each[number] for name, each in losses.items()})
            for number, step in enumerate(steps)
        ],
        [
            WeightPoint(step=step, tokens=step, weights={name: each[number] for name, each in weights.items()})
            for number, step in enumerate(began)
        ],
    )


def found_of(losses: list[float], weights: list[float]) -> Overfitting | None:
    steps = [10 * number for number in range(1, len(losses) + 1)]
    return overfitted_domains(*history({"code": losses}, {"code": weights}, steps)).get("code")


def test_the_run_that_fed_back_on_itself_is_found_with_its_domains() -> None:
    found = overfitted_domains(*history(**RUNS["velocitune"]))
    assert {name: (each.lowest_step, each.step) for name, each in found.items()} == {
        "python": (209, 228),
        "perl": (209, 228),
        "general": (171, 228),
    }
    python = found["python"].model_copy(update={"epochs": 1.14})
    assert python.described("python") == (
        "python is probably overfitted: its held-out loss rose from 3.296 (step 209) to 3.356 (step 228) while its "
        "weight grew from 26.8 % to 27.2 %, after 1.1 epochs of its text in this run"
    )


@pytest.mark.parametrize("label", ["recommended-search", "static"])
def test_other_runs_on_the_same_data_are_not(label: str) -> None:
    assert overfitted_domains(*history(**RUNS[label])) == {}


@pytest.mark.parametrize(
    ("losses", "weights"),
    [
        ([3.0, 3.2, 3.4], [0.5, 0.4, 0.3]),  # forgotten
        ([3.0, 3.2, 3.4], [0.5, 0.5, 0.5]),  # worse under a constant weight
        ([3.0, 3.2, 3.4], [0.5, 0.5 + 1e-9, 0.5 + 2e-9]),  # a weight that is held, but for rounding
        ([3.0, 3.04, 3.04], [0.3, 0.4, 0.5]),  # noise
        ([3.4, 3.2, 3.0], [0.3, 0.4, 0.5]),
        ([3.0], [0.5]),
        ([], [0.5]),
    ],
)
def test_one_of_the_two_alone_is_no_overfitting(losses: list[float], weights: list[float]) -> None:
    steps = [10 * number for number in range(1, len(losses) + 1)]
    points, _ = history({"code": losses}, {"code": weights}, steps)
    used = [WeightPoint(step=10 * number, tokens=0, weights={"code": weight}) for number, weight in enumerate(weights)]
    assert overfitted_domains(points, used) == {}


def test_the_rise_is_measured_from_the_lowest_loss_and_the_growth_from_its_weight() -> None:
    found = found_of([3.5, 3.0, 3.02, 3.03, 3.06], [0.4, 0.2, 0.1, 0.1, 0.3])
    assert found == Overfitting(lowest_step=20, lowest_loss=3.0, lowest_weight=0.2, step=50, loss=3.06, weight=0.3)


def test_a_weight_set_after_an_evaluation_counts_from_the_next_one() -> None:
    """The loss at an evaluation is that of a model trained under the weights before it."""
    assert found_of([3.0, 3.5], [0.3, 0.3]) is None
    later = found_of([3.0, 3.5, 3.5], [0.3, 0.3, 0.6])
    assert later is not None and (later.step, later.weight) == (30, 0.6)


def test_a_history_without_weights_finds_nothing() -> None:
    points, _ = history({"code": [3.0, 4.0]}, {"code": [0.1, 0.9]}, [10, 20])
    assert overfitted_domains(points, []) == {}


def test_a_held_out_set_of_no_domain_is_passed_over() -> None:
    losses = {"general": [3.0, 4.0], "code": [3.0, 4.0]}
    assert set(overfitted_domains(*history(losses, {"code": [0.1, 0.9]}, [10, 20]))) == {"code"}


LOSSES, WEIGHTS = (st.floats(low, high, allow_nan=False) for low, high in ((0, 9), (0.01, 1)))


@given(st.lists(st.tuples(LOSSES, WEIGHTS), min_size=1, max_size=12), st.integers(1, 12))
def test_what_is_found_stays_found_and_a_resumed_run_finds_the_same(rows: list[tuple[float, float]], cut: int) -> None:
    """The state is the history alone: of any beginning of it, what is found is what the whole finds up to there."""
    losses, weights = ([row[index] for row in rows] for index in (0, 1))
    whole, begun = found_of(losses, weights), found_of(losses[:cut], weights[: cut + 1])
    assert begun == (whole if whole is not None and whole.step <= 10 * cut else None)
    if whole is not None:
        assert whole.loss - whole.lowest_loss >= RISE_NATS and whole.weight >= GROWTH * whole.lowest_weight
        assert whole.lowest_loss == min(losses[: whole.step // 10])
