"""Laws of many domains, fitted on all cores."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.stages.targets import on_all_cores
from velocitune_core.config import Targets
from velocitune_core.contracts import InitialLosses, LossPoint, ProxyResult
from velocitune_core.targets import fit_targets

DOMAINS, BUDGET = 12, 1_000_000
NAMES = [f"domain-{number}" for number in range(DOMAINS)]


def proxies() -> list[ProxyResult]:
    random = np.random.default_rng(0)
    floors, scales = random.uniform(1.5, 3, DOMAINS), random.uniform(100, 400, DOMAINS)
    found = []
    for tokens in (80_000, 120_000, 200_000, 600_000):
        losses = (floors + scales * tokens**-0.45) * np.exp(random.normal(0, 0.003, DOMAINS))
        point = LossPoint(step=1, tokens=tokens, losses=dict(zip(NAMES, losses.tolist(), strict=True)))
        fraction = tokens / BUDGET
        found.append(
            ProxyResult(name=f"p{tokens}", fraction=fraction, seed=1, steps=1, tokens=tokens, points=[point], seconds=1)
        )
    return found


def test_the_targets_are_those_of_one_core(capsys: pytest.CaptureFixture[str]) -> None:
    initial = InitialLosses(losses=dict.fromkeys(NAMES, 6.0), tokens={}, seconds=0)
    settings = Targets(bootstrap=10)
    fitted = fit_targets(initial, proxies(), BUDGET, settings, map_domains=on_all_cores)
    assert fitted == fit_targets(initial, proxies(), BUDGET, settings)
    assert list(fitted.domains) == NAMES
    assert f"{DOMAINS}/{DOMAINS}" in capsys.readouterr().err  # the bar
