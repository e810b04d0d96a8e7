"""The stage `weights`: which weights the training starts from, and what finding them cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.runs.jobs import initial_domain_weights
from tasks.stages.weights import write_weights
from tasks.workspace import paths
from velocitune_core.config import Params, StrategyConfig
from velocitune_core.contracts import Manifest, StartingWeights, TrainResult

pytestmark = pytest.mark.usefixtures("forked_program")


@pytest.fixture
def params(measured: Params, no_views: Callable[[str], None]) -> Params:
    no_views("tasks.stages.weights")
    return measured


def under(params: Params, strategy: str, **options: Any) -> Params:
    return params.model_copy(update={"strategy": StrategyConfig(name=strategy, options=options)})


def test_a_strategy_without_a_search_starts_from_the_initial_weights_at_no_cost(params: Params) -> None:
    found = write_weights.fn(params)
    assert found.domain_weights == initial_domain_weights(params, Manifest.read(paths.MANIFEST))
    assert (found.found_by, found.strategy, found.held) == ("initial", "velocitune", False)
    assert (found.runs, found.tokens, found.flops, found.seconds) == ([], 0, 0, 0)
    assert StartingWeights.read(paths.WEIGHTS) == found
    assert not paths.RUNS.exists()


def test_a_search_finds_weights_and_its_runs_are_priced(params: Params) -> None:
    found = write_weights.fn(under(params, "doremi"))
    assert (found.found_by, found.held) == ("search", True)
    assert [run.name for run in found.runs] == ["training-reference", "training-search"]
    results = [TrainResult.read(paths.RUNS / run.folder / "result.json") for run in found.runs]
    assert found.domain_weights == results[-1].mean_domain_weights
    assert found.tokens == sum(result.tokens for result in results) == 2 * 2560
    reference, search = found.runs  # 6·N and more per token; a reference evaluates every batch of the search, too
    assert 6 * results[0].parameters * 2560 < reference.flops < search.flops
    assert write_weights.fn(under(params, "doremi")) == found  # from the finished runs
    assert sorted(path.name for path in paths.RUNS.iterdir()) == sorted(run.folder for run in found.runs)
