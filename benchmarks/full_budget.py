"""Predict runs of the full budget from swarms of a fraction: the second part of `mixture_law.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mixture_data import Array, Swarm, embedded
from rich.table import Table

from velocitune_core.mixture_law import MixtureLaw, at_full_budget, effect_size, fit_mixture_law
from velocitune_core.mixture_law.law import LawName

RESAMPLES = 200
CALIBRATIONS, CALIBRATING_RUNS = 20, (3, 6)  # random draws of so many runs of the model itself


@dataclass(frozen=True)
class Full:
    """Mixtures that were run at the full budget, and what they reached against static training of the same seed."""

    names: list[str]
    weights: Array  # (M, K)
    differences: Array  # (M, K), mean over seeds
    initial: Array  # (K,) w₀


def law_of(swarm: Swarm, law: LawName = "transfer", *, bootstrap: int = 0) -> MixtureLaw:
    """Return a law fitted to some runs."""
    return fit_mixture_law(*swarm.columns(), law=law, bootstrap=bootstrap)


def read(folder: Path) -> tuple[dict[str, Swarm], Full, dict[float, Array]]:
    """Return the swarms by kind, the full runs, and the static proxies' losses by fraction."""
    kinds = {"own ¼": "swarm-0_25", "own 1/10": "swarm-0_1", "sibling ¼": "sib-0_25"}
    proxies = embedded(folder, "proxy")
    static = dict(zip(proxies.fractions, proxies.losses, strict=True))
    swarms = {kind: embedded(folder, prefix) for kind, prefix in kinds.items()}
    return swarms, _full(embedded(folder, "full"), proxies.weights[0]), static


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


def full_budget_table(folder: Path) -> list[Table]:
    """Return the misses of each rule over the full mixtures, and what cross-validation says of the swarms' laws."""
    swarms, full, static = read(folder)
    own, tenth, sibling = swarms.values()
    anchored = own.with_run(full.initial, static_at(static, 0.25))
    predicted = {
        "own ¼": differences(law_of(own), full),
        "own ¼ with the static run": differences(law_of(anchored), full),
        "own ¼ with the static run, loglinear": differences(law_of(anchored, "loglinear"), full),
        "own 1/10": differences(law_of(tenth), full),
        "own, linear in log D through 1/10 and ¼": _extrapolated(law_of(own), law_of(tenth), full),
        "sibling ¼": differences(law_of(sibling), full),
    }
    predicted["mean of own ¼ and sibling ¼"] = (predicted["own ¼"] + predicted["sibling ¼"]) / 2
    table = Table(title=f"Difference to static at the full budget, {len(full.names)} mixtures: miss in nats")
    for column in ("rule", "macro: median", "largest", "by size: median", "largest", "per set: mean"):
        table.add_column(column)
    for name, each in predicted.items():
        table.add_row(name, *_misses(each, full))
    scaled = differences(law_of(sibling), full, effect=effect_size(law_of(sibling), *own.columns()))
    table.add_row("sibling ¼ · effect size of all own runs at ¼", *_misses(scaled, full))
    for runs in CALIBRATING_RUNS:
        table.add_row(
            f"sibling ¼ · effect size of {runs} own runs at ¼, mean of draws", *_calibrated(swarms, full, runs)
        )
    for name in ("own ¼", "sibling ¼"):
        table.add_row(f"{name} · factor of the other full mixtures", *_misses(_by_factor(predicted[name], full), full))
    return [table, coverage(swarms, full), _cross_validation(swarms, full)]


def coverage(swarms: dict[str, Swarm], full: Full) -> Table:
    """Return how many reached differences lie within 95 % intervals, with and without the drift between fractions."""
    own, tenth, _ = swarms.values()
    law, initial = law_of(own, bootstrap=RESAMPLES), dict(zip(own.domains, full.initial, strict=True))
    averages = {
        "per set": np.eye(len(own.sets)),
        "macro": np.full((1, len(own.sets)), 1 / len(own.sets)),
        "by size": full.initial[None],
    }
    table = Table(title="Differences to static at the full budget within intervals of 95 %: share (mean width in nats)")
    for column in ("interval", *averages):
        table.add_column(column)
    for drift, earlier in (("¼ alone", None), ("with the drift since 1/10", law_of(tenth))):
        moved = at_full_budget(law, initial, earlier=earlier)
        drawn = moved.resampled_losses(full.weights)
        for what, values in (("expected", drawn), ("of a run", drawn + moved.run_noise(drawn.shape))):
            cells = [_covered(values @ shares.T, full.differences @ shares.T) for shares in averages.values()]
            table.add_row(f"{drift}, {what}", *cells)
    return table


def _covered(drawn: Array, reached: Array) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return f"{((low <= reached) & (reached <= high)).mean():.2f} ({(high - low).mean():.3f})"


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
    own, law = swarms["own ¼"], law_of(swarms["sibling ¼"])
    misses = []
    for seed in range(CALIBRATIONS):
        rows = np.random.default_rng(seed).permutation(len(own.weights))[:runs]
        effect = effect_size(law, *own.part(rows).columns())
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
            fitted = law_of(swarm, name)
            misses = fitted.cross_validated - fitted.runs.losses
            errors = [np.abs(each).mean() for each in (misses, misses.mean(axis=1), misses @ full.initial)]
            table.add_row(kind, name, *(f"{error:.4f}" for error in errors))
    tenth, law = law_of(swarms["own 1/10"]), law_of(swarms["own ¼"])
    weights = swarms["own ¼"].weights
    change = [each.losses(weights) - each.losses(full.initial) for each in (law, tenth)]
    misses = change[1] - change[0]
    errors = [np.abs(each).mean() for each in (misses, misses.mean(axis=1), misses @ full.initial)]
    table.add_row("own 1/10 for own ¼", "differences to w₀", *(f"{error:.4f}" for error in errors))
    return table
