"""Steps under `max_epochs`: the sampler has a batch for each of them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as of_hypothesis
from hypothesis import strategies as st

from tasks.runs.budget import check_budget, most_steps, share_of_steps, steps_for
from tasks.workspace import said_once
from velocitune_core.config import ConfigError, Training, parse_params
from velocitune_core.contracts import DomainManifest, Manifest, Split
from velocitune_core.mixture import DomainSampler, MixtureError

LENGTH = 32


def training(batch_sequences: int, max_epochs: float | None, **changes: Any) -> Training:
    tree = {"optimizer": {"learning_rate": 1e-3}, "batch_sequences": batch_sequences, "max_epochs": max_epochs}
    return Training.model_validate(tree | changes)


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 3)), min_size=1, max_size=6).filter(
        lambda domains: any(weight for _, weight in domains)
    ),
    st.floats(0.001, 1.0),
    st.floats(0.1, 3.0),
    st.integers(1, 40),
)
@of_hypothesis(deadline=None, max_examples=40)
def test_the_sampler_never_runs_dry(
    domains: list[tuple[int, int]], fraction: float, max_epochs: float, batch: int
) -> None:
    sizes = {f"d{number}": size for number, (size, _) in enumerate(domains)}
    relative = {f"d{number}": float(weight) for number, (_, weight) in enumerate(domains)}
    weights = {name: weight / sum(relative.values()) for name, weight in relative.items()}
    settings_ = training(batch, max_epochs)
    most = most_steps(settings_, sizes, weights, fraction)
    assert most is not None
    wanted = 10 * (most + 1)  # more than there is, so that the limit decides
    if most < 1:
        with pytest.raises(ConfigError, match="less than one step"):
            share_of_steps(settings_, sizes, weights, fraction, round(wanted / fraction))
        return
    steps = share_of_steps(settings_, sizes, weights, fraction, round(wanted / fraction))
    sampler = DomainSampler(sizes, seed=1, batch_size=batch, fraction=fraction, max_epochs=max_epochs)
    now = np.array(list(weights.values()))
    for _ in range(steps):
        sampler.next_batch(now)
    with pytest.raises(MixtureError):  # and no step was withheld
        sampler.next_batch(now)


def test_a_proxy_takes_the_steps_that_its_fraction_can_give() -> None:
    """Three domains of 100, a tenth each: 30 sequences are three batches of nine, where a tenth of 33 rounds to 3."""
    sizes, weights = {"a": 104, "b": 104, "c": 104}, {"a": 0.5, "b": 0.25, "c": 0.25}
    once = training(9, 1.0)
    assert steps_for(once, sizes, LENGTH, weights) == 34  # 312 / 9
    assert share_of_steps(once, sizes, weights, 0.1, 34) == 3
    assert share_of_steps(once, sizes, weights, 0.104, 34) == 3  # 33 of 33 sequences; round(3.536) would be 4
    assert share_of_steps(training(9, None), sizes, weights, 0.104, 34) == 4
    assert share_of_steps(training(9, 2.0), sizes, weights, 0.104, 34) == 4


def test_domains_of_weight_0_give_no_steps() -> None:
    sizes, weights = {"used": 50, "unused": 1000}, {"used": 1.0, "unused": 0.0}
    assert most_steps(training(10, 1.0), sizes, weights) == 5
    assert share_of_steps(training(10, 1.0), sizes, weights, 0.5, 5) == 2
    with pytest.raises(ConfigError, match=r"max_epochs: 1\.0 epochs of 50 sequences are less than the budget of 1050"):
        steps_for(training(10, 1.0), sizes, LENGTH, weights)


def test_a_fraction_without_a_whole_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.0 epochs of the fraction 0\.01 .* less than one step of 16 sequences"):
        share_of_steps(training(16, 1.0), {"a": 300, "b": 200}, {"a": 0.6, "b": 0.4}, 0.01, 31)


def packed(**sequences: int) -> Manifest:
    """A manifest of domains with so many sequences of ten tokens."""

    def split(count: int) -> Split:
        return Split(file="x", documents=1, sequences=count, tokens=count * 10, sha256="")

    parts = {"documents_read": 1, "duplicates": 0, "too_short": 0}
    domains = {name: DomainManifest(train=split(size), held_out=split(1), **parts) for name, size in sequences.items()}
    return Manifest(sequence_length=10, vocabulary_size=64, tokenizer_sha256="0" * 64, domains=domains)


@pytest.mark.parametrize(("every_steps", "warned"), [(5, True), (1, False)])
def test_one_epoch_of_few_updates_is_warned_of_once_it_is_packed(
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    every_steps: int,
    warned: bool,
) -> None:
    """Without a budget the length of a run is known only then."""
    monkeypatch.setattr(said_once, "_said", set())
    settings["evaluation"]["every_steps"] = every_steps
    with caplog.at_level(logging.INFO):
        check_budget(parse_params(settings), packed(code=80, law=80))
    said, *warnings = caplog.messages
    assert (
        said == f"token budget: 1,600 tokens in 10 steps, {'1 update' if warned else '9 updates'} of the domain weights"
    )
    assert [each.partition(",")[0] for each in warnings] == [
        "evaluation.every_steps: 5 gives 1 update of the domain weights in 10 steps"
    ] * warned


def test_a_plan_that_nothing_fulfils_is_refused_once_sizes_are_known_and_before_any_run(
    settings: dict[str, Any],
) -> None:
    """Domains of 300 and 600 tokens; w_0 follows from them, and from it the mixtures of the swarm."""
    settings["strategy"] = {"name": "planned"}
    settings["training"]["token_budget"] = 1000
    manifest = packed(code=30, law=60)

    def refused(**objective: Any) -> str:
        params = parse_params(settings | {"mixture": {"objective": objective}})
        with pytest.raises(ConfigError) as found:
            check_budget(params, manifest)
        return str(found.value)

    assert "mixture.objective.epochs fills" in refused(epochs=0.9)
    assert "mixture.objective.least_share of code is 0.99; the runs go up to" in refused(least_share={"code": 0.99})
    check_budget(parse_params(settings | {"mixture": {"objective": {"least_share": {"code": 0.3}}}}), manifest)
