"""The cost of runs, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import SEVEN_BILLION

from velocitune_core.plan.cost import (
    Calibration,
    Run,
    Speed,
    Stage,
    checkpoint_bytes,
    cluster_seconds,
    disk,
    estimate_cost,
    flops_per_token,
    forward_flops_per_token,
    run_seconds,
    token_bytes,
    total_cost,
)

RUN = Run("run", steps=10, batch_sequences=4, sequence_length=100, evaluations=2, evaluated_sequences=5)
SPEED = Speed(start=7.0, step_per_sequence=0.5, evaluation_per_sequence=0.1, checkpoint=3.0)


def test_llama_7b_has_its_published_parameters() -> None:
    assert SEVEN_BILLION.parameters == 6_738_415_616
    assert SEVEN_BILLION.embedding_parameters == 262_144_000


def test_operations_of_a_token() -> None:
    # 6 · 6,738,415,616 = 40,430,493,696 and 12 · 32 · 4096 · 4096 = 6,442,450,944
    assert flops_per_token(SEVEN_BILLION, 4096) == 40_430_493_696 + 6_442_450_944


def test_operations_of_a_hundred_billion_tokens() -> None:
    without_attention = flops_per_token(SEVEN_BILLION, 0) * 100e9
    assert without_attention == pytest.approx(4.043e21, rel=1e-4)  # 6·N·D


def test_recomputed_layers_cost_another_forward_pass() -> None:
    again = flops_per_token(SEVEN_BILLION, 4096, recomputes=True) - flops_per_token(SEVEN_BILLION, 4096)
    assert again == 2 * (6_738_415_616 - 262_144_000) + 6_442_450_944 / 3
    run = replace(RUN, recomputes=True)
    plain, recomputed = (estimate_cost([Stage("x", (each,))], SEVEN_BILLION, [None])[0] for each in (RUN, run))
    assert recomputed.evaluation_flops == plain.evaluation_flops < plain.training_flops < recomputed.training_flops


def test_what_a_probe_counted_is_added_to_the_arithmetic() -> None:
    shape = replace(SEVEN_BILLION, measured=Calibration(step_flops=1e9, forward_flops=-1e8))
    assert flops_per_token(shape, 4096) == flops_per_token(SEVEN_BILLION, 4096) + 1e9
    assert forward_flops_per_token(shape, 4096) == flops_per_token(SEVEN_BILLION, 4096) / 3 - 1e8


def test_evaluation_costs_a_third_per_token() -> None:
    (each,) = estimate_cost([Stage("train", (RUN,))], SEVEN_BILLION, [None])
    per_token = flops_per_token(SEVEN_BILLION, 100)
    assert (each.tokens, each.steps, each.seconds) == (4000, 10, None)
    assert each.training_flops == 4000 * per_token
    assert each.evaluation_flops == pytest.approx(2 * 5 * 100 * per_token / 3)


def test_seconds_of_a_run() -> None:
    run = replace(RUN, checkpoints=2)
    assert run_seconds(run, SPEED) == pytest.approx(7 + 10 * 4 * 0.5 + 2 * 5 * 0.1 + 2 * 3)
    assert run_seconds(run, replace(SPEED, checkpoint=None)) == pytest.approx(28)  # not measured, left out


def test_a_reference_model_adds_a_third_of_a_step() -> None:
    assert run_seconds(replace(RUN, reference=True), SPEED) - run_seconds(RUN, SPEED) == pytest.approx(20 / 3)
    plain, beside = (
        estimate_cost([Stage("x", (each,))], SEVEN_BILLION, [None])[0] for each in (RUN, replace(RUN, reference=True))
    )
    assert beside.training_flops == pytest.approx(plain.training_flops * 4 / 3)


@pytest.mark.parametrize(("parallel", "seconds"), [(1, 28.0 * 3), (2, 28.0 * 2), (3, 28.0), (9, 28.0)])
def test_concurrent_runs(parallel: int, seconds: float) -> None:
    (each,) = estimate_cost([Stage("proxies", (RUN,) * 3, parallel)], SEVEN_BILLION, [SPEED])
    assert each.seconds == pytest.approx(seconds)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(1, 5))
def test_concurrent_runs_take_at_least_their_share_and_at_most_the_sum(steps: list[int], parallel: int) -> None:
    runs = tuple(replace(RUN, steps=count) for count in steps)
    each = [run_seconds(run, SPEED) for run in runs]
    (estimated,) = estimate_cost([Stage("x", runs, parallel)], SEVEN_BILLION, [SPEED])
    assert estimated.seconds is not None
    assert max(sum(each) / parallel, *each) <= estimated.seconds + 1e-9
    assert estimated.seconds <= sum(each) + 1e-9


def test_a_total_has_no_time_where_a_stage_has_none() -> None:
    stages = [Stage("a", (RUN,)), Stage("b", (RUN,))]
    known, unknown = (estimate_cost(stages, SEVEN_BILLION, [SPEED, each]) for each in (SPEED, None))
    assert total_cost(known).seconds == pytest.approx(56) and total_cost(unknown).seconds is None
    assert total_cost(known).tokens == 8000


def test_time_of_a_cluster() -> None:
    # 64 devices of 1e15 operations a second, 40 % of them used, do 2.56e16 a second
    assert cluster_seconds(2.56e20, 64, 1e15, 0.4) == pytest.approx(10_000)


def test_disk() -> None:
    kept = replace(RUN, checkpoints=5, checkpoints_kept=2, saves_model=True)
    room = disk([Stage("a", (kept, kept)), Stage("b", (RUN,))], SEVEN_BILLION, packed_tokens=1000, published_models=1)
    assert room.packed == 2000
    assert room.checkpoints == 4 * 12 * 6_738_415_616
    assert room.models == 3 * 4 * 6_738_415_616
    assert room.total == room.packed + room.checkpoints + room.models


def test_a_tied_head_is_written_twice() -> None:
    tied = replace(SEVEN_BILLION, tied=True, parameters=1000, vocabulary_size=10, hidden_size=8)
    assert checkpoint_bytes(tied) == 4 * (3 * 1000 + 80)


def test_packed_tokens_take_two_bytes_up_to_65536_ids() -> None:
    assert [token_bytes(size) for size in (1024, 65_536, 65_537)] == [2, 2, 4]
