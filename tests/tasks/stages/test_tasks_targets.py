"""Laws of many domains, fitted on all cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples

from tasks.stages.targets import on_all_cores, write_targets
from tasks.workspace import paths
from velocitune_core.config import ConfigError, Targets, parse_params
from velocitune_core.contracts import InitialLosses, LossPoint, ProxyResult
from velocitune_core.targets import fit_targets

DOMAINS, BUDGET = 6, 1_000_000
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
            ProxyResult(
                name=f"p{tokens}",
                precision="float32",
                fraction=fraction,
                seed=1,
                steps=1,
                tokens=tokens,
                points=[point],
                seconds=1,
            )
        )
    return found


@pytest.mark.slow  # two processes that import all that fits
def test_the_targets_are_those_of_one_core(capsys: pytest.CaptureFixture[str]) -> None:
    initial = InitialLosses(precision="float32", losses=dict.fromkeys(NAMES, 6.0), tokens={}, seconds=0)
    settings = Targets(bootstrap=4)
    fitted = fit_targets(initial, proxies(), BUDGET, settings, map_domains=on_all_cores)
    assert fitted == fit_targets(initial, proxies(), BUDGET, settings)
    assert list(fitted.domains) == NAMES
    assert f"{DOMAINS}/{DOMAINS}" in capsys.readouterr().err  # the bar


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("other", ["results/initial.json", "results/proxies/p200000.json"])
def test_losses_in_two_precisions_are_not_fitted_together(settings: dict[str, Any], other: str) -> None:
    samples.manifest().write(paths.MANIFEST)
    measured: dict[Path, InitialLosses | ProxyResult] = {
        paths.INITIAL: InitialLosses(precision="float32", losses=dict.fromkeys(NAMES, 6.0), tokens={}, seconds=0),
        **{paths.PROXIES / f"{proxy.name}.json": proxy for proxy in proxies()},
    }
    for path, losses in measured.items():
        changes = {"precision": "bfloat16"} if path == Path(other) else {}
        losses.model_copy(update=changes).write(path)
    with pytest.raises(ConfigError, match=rf"is float32, but {other} was measured in bfloat16; measure again"):
        write_targets.fn(parse_params(settings))
    assert not paths.TARGETS.exists()
