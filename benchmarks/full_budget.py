"""Predict runs of the full budget from swarms of a fraction: the second part of `mixture_law.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from velocitune_core.mixture_law import MixtureLaw, at_full_budget, effect_size, fit_mixture_law
from velocitune_core.mixture_law.law import LawName

Array = NDArray[np.float64]
CALIBRATIONS, CALIBRATING_RUNS = 20, (3, 6)  # random draws of so many runs of the model itself


@dataclass(frozen=True)
class Swarm:
    """Runs of one kind."""

    domains: list[str]
    weights: Array  # (R, K)
    losses: Array  # (R, K)
    names: list[str]
    seeds: list[int]

    def law(self, law: LawName = "transfer", *, bootstrap: int = 0) -> MixtureLaw:
        """Return a law fitted to these runs."""
        return fit_mixture_law(self.columns(self.weights), self.columns(self.losses), law=law, bootstrap=bootstrap)

    def columns(self, values: Array) -> dict[str, Array]:
        """Return values (R, K) by domain."""
        return dict(zip(self.domains, values.T, strict=True))

    def with_run(self, weights: Array, losses: Array) -> Swarm:
        """Return these runs and one more."""
        added = np.vstack([self.weights, weights]), np.vstack([self.losses, losses])
        return Swarm(self.domains, *added, [*self.names, "static"], [*self.seeds, 0])


@dataclass(frozen=True)
class Full:
    """Mixtures that were run at the full budget, and what they reached against static training of the same seed."""

    names: list[str]
    weights: Array  # (M, K)
    differences: Array  # (M, K), mean over seeds
    initial: Array  # (K,) w₀


def read(path: Path) -> tuple[dict[str, Swarm], Full, dict[float, Array]]:
    """Return the swarms by kind, the full runs, and the static proxies' losses by fraction."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    domains = sorted(runs[0]["weights"])

    def swarm(chosen: list[dict]) -> Swarm:
        weights = np.array([[run["weights"][domain] for domain in domains] for run in chosen])
        losses = np.array([[run["losses"][domain] for domain in domains] for run in chosen])
        names, seeds = [run["name"] for run in chosen], [run["seed"] for run in chosen]
        return Swarm(domains, weights / weights.sum(axis=1, keepdims=True), losses, names, seeds)

    kinds = {"own ¼": "swarm-0_25", "own 1/10": "swarm-0_1", "sibling ¼": "sib-0_25"}
    swarms = {kind: swarm([run for run in runs if run["name"].startswith(name)]) for kind, name in kinds.items()}
    proxies = [run for run in runs if run["name"].startswith("proxy")]
    static = {run["fraction"]: np.array([run["losses"][domain] for domain in domains]) for run in proxies}
    return swarms, _full(swarm([run for run in runs if run["fraction"] == 1]), swarm(proxies).weights[0]), static


def _full(runs: Swarm, initial: Array) -> Full:
    is_static = np.abs(runs.weights - initial).max(axis=1) < 2e-3
    static = {runs.seeds[row]: runs.losses[row] for row in np.flatnonzero(is_static)}
    mixtures: dict[tuple[float, ...], list[int]] = {}
    for row in np.flatnonzero(~is_static):
        mixtures.setdefault(tuple(runs.weights[row].round(3)), []).append(int(row))
    rows = list(mixtures.values())
    reached = [np.mean([runs.losses[row] - static[runs.seeds[row]] for row in each], axis=0) for each in rows]
    first = [each[0] for each in rows]
    return Full([runs.names[row] for row in first], runs.weights[first], np.array(reached), initial)


def differences(law: MixtureLaw, full: Full, *, effect: float = 1.0) -> Array:
    """Return the predicted differences to static (M, I) at the full budget."""
    initial = dict(zip(law.domains, full.initial, strict=True))
    return at_full_budget(law, initial, effect=effect).losses(full.weights)


def static_at(static: dict[float, Array], fraction: float) -> Array:
    """Return static losses at a fraction, linear in its logarithm between the proxies."""
    fractions = sorted(static)
    losses = np.array([static[each] for each in fractions]).T
    return np.array([np.interp(np.log(fraction), np.log(fractions), each) for each in losses])


def full_budget_table(path: Path) -> list[Table]:
    """Return the misses of each rule over the full mixtures, and what cross-validation says of the swarms' laws."""
    swarms, full, static = read(path)
    own, tenth, sibling = swarms.values()
    anchored = own.with_run(full.initial, static_at(static, 0.25))
    predicted = {
        "own ¼": differences(own.law(), full),
        "own ¼ with the static run": differences(anchored.law(), full),
        "own ¼ with the static run, loglinear": differences(anchored.law("loglinear"), full),
        "own 1/10": differences(tenth.law(), full),
        "own, linear in log D through 1/10 and ¼": _extrapolated(own.law(), tenth.law(), full),
        "sibling ¼": differences(sibling.law(), full),
    }
    predicted["mean of own ¼ and sibling ¼"] = (predicted["own ¼"] + predicted["sibling ¼"]) / 2
    table = Table(title=f"Difference to static at the full budget, {len(full.names)} mixtures: miss in nats")
    for column in ("rule", "macro: median", "largest", "by size: median", "largest", "per set: mean"):
        table.add_column(column)
    for name, each in predicted.items():
        table.add_row(name, *_misses(each, full))
    for runs in CALIBRATING_RUNS:
        table.add_row(
            f"sibling ¼ · effect size of {runs} own runs at ¼, mean of draws", *_calibrated(swarms, full, runs)
        )
    for name in ("own ¼", "sibling ¼"):
        table.add_row(f"{name} · factor of the other full mixtures", *_misses(_by_factor(predicted[name], full), full))
    return [table, _cross_validation(swarms, full)]


def _extrapolated(law: MixtureLaw, earlier: MixtureLaw, full: Full) -> Array:
    now, before = differences(law, full), differences(earlier, full)
    return now + (now - before) * np.log(1 / 0.25) / np.log(0.25 / 0.1)


def _by_factor(predicted: Array, full: Full) -> Array:
    """Scale each mixture's differences by the factor that fits the other mixtures."""
    found = np.empty_like(predicted)
    for row in range(len(predicted)):
        others = np.arange(len(predicted)) != row
        given, reached = predicted[others], full.differences[others]
        found[row] = predicted[row] * (given * reached).sum() / (given**2).sum()
    return found


def _calibrated(swarms: dict[str, Swarm], full: Full, runs: int) -> list[str]:
    own, law = swarms["own ¼"], swarms["sibling ¼"].law()
    misses = []
    for seed in range(CALIBRATIONS):
        rows = np.random.default_rng(seed).permutation(len(own.weights))[:runs]
        effect = effect_size(law, own.columns(own.weights[rows]), own.columns(own.losses[rows]))
        misses.append(_numbers(differences(law, full, effect=effect), full))
    return [f"{each:.4f}" for each in np.mean(misses, axis=0)]


def _misses(predicted: Array, full: Full) -> list[str]:
    return [f"{each:.4f}" for each in _numbers(predicted, full)]


def _numbers(predicted: Array, full: Full) -> list[float]:
    misses = predicted - full.differences
    macro, size = np.abs(misses.mean(axis=1)), np.abs(misses @ full.initial)
    return [float(each) for each in (np.median(macro), macro.max(), np.median(size), size.max(), np.abs(misses).mean())]


def _cross_validation(swarms: dict[str, Swarm], full: Full) -> Table:
    table = Table(title="Leave-one-out error of the swarms' laws: mean absolute, nats")
    for column in ("swarm", "law", "per set", "macro", "by size"):
        table.add_column(column)
    names: tuple[LawName, ...] = ("transfer", "loglinear", "bimix")
    for kind, swarm in swarms.items():
        for name in names:
            misses = swarm.law(name).cross_validated - swarm.losses
            errors = [np.abs(each).mean() for each in (misses, misses.mean(axis=1), misses @ full.initial)]
            table.add_row(kind, name, *(f"{error:.4f}" for error in errors))
    tenth, law = swarms["own 1/10"].law(), swarms["own ¼"].law()
    weights = swarms["own ¼"].weights
    change = [each.losses(weights) - each.losses(full.initial) for each in (law, tenth)]
    misses = change[1] - change[0]
    errors = [np.abs(each).mean() for each in (misses, misses.mean(axis=1), misses @ full.initial)]
    table.add_row("own 1/10 for own ¼", "differences to w₀", *(f"{error:.4f}" for error in errors))
    return table
