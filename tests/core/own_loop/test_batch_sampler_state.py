"""What a batch sampler resumes from, what it keeps, and which states it refuses."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import pytest
from batch_samplers import LABELS, LAYOUTS, NO_CATS, WEIGHTS, Layout, sampler, shares, take
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core import MixtureBatchSampler
from velocitune_core.mixture import MixtureError


@settings(max_examples=15)
@given(
    layout=st.sampled_from(LAYOUTS),
    steps=st.sampled_from([None, 1, 4, 7]),
    stopped_at=st.integers(0, 70),
    changes=st.dictionaries(st.integers(0, 14), st.sampled_from([NO_CATS, {"cat": 2, "dog": 1, "cow": 1}])),
)
def test_the_rest_after_a_resume_is_the_rest_without_one(
    layout: Layout, steps: int | None, stopped_at: int, changes: dict[int, dict[str, float]]
) -> None:
    def made() -> MixtureBatchSampler:
        return sampler(world_size=layout[0], micro_batch_size=layout[1], steps=steps)

    def passes(ours: MixtureBatchSampler) -> list[list[int]]:
        return list(itertools.islice(itertools.chain.from_iterable(iter(ours) for _ in itertools.count()), 90))

    stopped_at = min(stopped_at, 12 * 24 // (layout[0] * layout[1]))
    whole, stopped, resumed = made(), made(), made()
    for step, weights in changes.items():
        whole.set_weights(weights, from_step=step)
        stopped.set_weights(weights, from_step=step)
    rest = passes(whole)[stopped_at:]
    for _ in itertools.islice(itertools.chain.from_iterable(iter(stopped) for _ in itertools.count()), stopped_at):
        pass
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert passes(resumed)[: len(rest)] == rest


def test_a_state_of_an_earlier_step_is_what_a_loader_ahead_of_the_loop_resumes_from() -> None:
    ours = sampler()
    take(ours, 9)  # the loop has done 5, the loader holds 4
    ours.set_weights(NO_CATS)
    state = json.loads(json.dumps(ours.state_dict(step=5)))
    rest = take(ours, 6)
    resumed = sampler()
    resumed.load_state_dict(state)
    assert take(resumed, 10) == take(sampler(), 9)[5:] + rest
    assert shares(rest)["cat"] == 0
    assert len(json.dumps(state)) < 1000


def test_after_going_back_nothing_of_the_undone_future_is_left() -> None:
    ours = sampler()
    take(ours, 10)
    loaders, written, kept = ours.state_dict(), ours.state_dict(step=10), copy.deepcopy(ours.state_dict())
    take(ours, 5)
    ours.set_weights(NO_CATS)  # at 15
    assert list(loaders["history"]) == [15]
    for state in (written, kept):
        ours.load_state_dict(state)
        assert shares(take(ours, 10)[5:])["cat"] > 0
    for state in (loaders, written):
        ours.load_state_dict(state)
        ours.set_weights({"cat": 1, "dog": 0, "cow": 0})
        assert shares(take(ours, 10)) == {"cat": 1, "dog": 0, "cow": 0}


def test_states_and_memory_do_not_grow_with_the_changes_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocitune_core.own_loop.batch_sampler.REMEMBERED_STEPS", 256)
    sizes = {f"group {number}": 10 for number in range(20)}
    ours = MixtureBatchSampler(sizes, dict.fromkeys(sizes, 1), 4)
    for step in range(2000):
        ours.set_weights(dict.fromkeys(sizes, 1) | {"group 0": step})
        next(iter(ours))
    assert len(json.dumps(ours.state_dict())) < 6000
    assert len(pickle.dumps((ours._before, ours._history._changes))) < 256 * (3 * 20 * 8 + 100)


def test_another_layout_goes_on_with_the_same_steps() -> None:
    ours, halves = sampler(), [sampler(world_size=2, rank=rank, micro_batch_size=6) for rank in (0, 1)]
    take(ours, 3)
    for each in halves:
        each.load_state_dict(ours.state_dict())
    first, second = (take(each, 2) for each in halves)
    assert take(ours, 1) == [first[0] + second[0] + first[1] + second[1]]


def test_weights_act_on_the_step_that_is_named_and_are_forgotten_when_no_state_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velocitune_core.own_loop.batch_sampler.REMEMBERED_STEPS", 16)
    ours = sampler()
    assert ours.set_weights(NO_CATS, from_step=3) == 3
    batches = take(ours, 6)
    assert [shares([batch])["cat"] > 0 for batch in batches] == [True] * 3 + [False] * 3
    assert ours.weights == pytest.approx(NO_CATS)
    with pytest.raises(MixtureError, match="from_step 5 has been drawn already: the loader has drawn 6 steps"):
        ours.set_weights(WEIGHTS, from_step=5)
    for _ in range(60):
        ours.set_weights(WEIGHTS)
        take(ours, 1)
    assert len(ours._history) <= 2 * 16 + 2
    with pytest.raises(MixtureError, match="keeps the last 16"):
        ours.state_dict(step=40)


def test_a_state_that_is_none_is_refused_and_changes_nothing() -> None:
    ours = sampler()
    take(ours, 3)
    before = ours.state_dict(step=3)
    for wrong in ({}, {**before, "weights": {}}, {**before, "sampler": {"step": 1}}, {**before, "history": {"x": 1}}):
        with pytest.raises(MixtureError, match=r"saved state cannot be read .* give what state_dict"):
            ours.load_state_dict(wrong)
    without_credit = {name: value for name, value in before["sampler"].items() if name != "credit"}
    with pytest.raises(MixtureError, match="KeyError: 'credit'"):
        ours.load_state_dict({**before, "sampler": without_credit | {"step": 1}})
    assert ours.state_dict(step=3) == before


def test_a_state_of_other_data_is_refused() -> None:
    state = sampler().state_dict()
    with pytest.raises(MixtureError, match="this data has"):
        sampler(groups=[*LABELS, "cow"]).load_state_dict(state)
    with pytest.raises(MixtureError, match="in another order"):
        sampler(groups=LABELS[1:] + LABELS[:1]).load_state_dict(state)
    with pytest.raises(MixtureError, match="seed 5, this run 6"):
        sampler(seed=6).load_state_dict(state)
    with pytest.raises(MixtureError, match="within a step"):
        cut = sampler(micro_batch_size=6)
        take(cut, 3)
        sampler(micro_batch_size=12).load_state_dict(cut.state_dict())
    with pytest.raises(MixtureError, match="has drawn 0 steps"):
        sampler().state_dict(step=2)
