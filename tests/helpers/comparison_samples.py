"""Comparisons by hand: three domains of a thousand tokens, and a drawn one of twelve strategies and five seeds."""

from __future__ import annotations

import numpy as np

from velocitune_core.contracts import ComparedRun, Comparison, LossPoint, Timings, TrainResult, WeightPoint

TOKENS, STEPS = 1000, 10
INITIAL = {"code": 5.0, "general": 4.0, "papers": 6.0}
TARGETS = {"code": 3.0, "general": 4.2, "papers": 4.0}  # general has no gap
ORIGINAL = {"code": 0.5, "general": 0.2, "papers": 0.3}
HELD_TOKENS = {"code": 600, "general": 100, "papers": 300}


def losses(code: float, general: float, papers: float) -> dict[str, float]:
    return {"code": code, "general": general, "papers": papers}


def run(
    label: str,
    seed: int,
    final: dict[str, float],
    *,
    points: dict[int, dict[str, float]] | None = None,  # tokens → losses
    weights: dict[int, dict[str, float]] | None = None,  # step → weights
    tokens_per_domain: dict[str, int] | None = None,
    tokens: int = TOKENS,
    steps: int = STEPS,
    seconds: Timings | None = None,
    **changes: object,
) -> ComparedRun:
    share = {name: 1 / len(final) for name in final}
    trajectory = weights or {0: share}
    result = TrainResult(
        name=f"{label}-s{seed}",
        strategy=label,
        precision="float32",
        steps=steps,
        tokens=tokens,
        parameters=1,
        final=final,
        points=[
            LossPoint(step=at * steps // tokens, tokens=at, losses=each)
            for at, each in ((points or {}) | {tokens: final}).items()
        ],
        domain_weights=[
            WeightPoint(step=step, tokens=step * tokens // steps, weights=each) for step, each in trajectory.items()
        ],
        mean_domain_weights=trajectory[max(trajectory)],
        tokens_per_domain=tokens_per_domain or {name: round(tokens * part) for name, part in share.items()},
        epochs_per_domain=dict.fromkeys(final, 1.0),
        tokens_per_second=100.0,
        seconds=seconds or Timings(training=8.0, evaluation=1.5, reweighting=0.5, total=10.0),
    )
    return ComparedRun(label=label, seed=seed, result=result, **changes)  # type: ignore[arg-type]


def comparison(*runs: ComparedRun, **changes: object) -> Comparison:
    parts = {
        "baseline": "static",
        "frontier": [],
        "retained": ["general"],
        "initial": INITIAL,
        "targets": TARGETS,
        "initial_domain_weights": ORIGINAL,
        "domain_tokens": HELD_TOKENS,
        "proxy_tokens": 875,
        "proxy_seconds": 4.0,
        "runs": list(runs),
    }
    return Comparison(**{**parts, **changes})  # type: ignore[arg-type]


def three_seeds(**changes: object) -> Comparison:
    """Constant mixtures that trade code for papers, and velocitune with differences of −0.1, −0.2 and −0.3 to static.

    Per seed, with d = 0, 0.1, 0.2: static ends at 3.0, 4.2, 5.4 plus d each, even at 3.9, 4.2, 4.2 plus d.
    """
    runs = []
    for seed, d in ((1, 0.0), (2, 0.1), (3, 0.2)):
        lower = 0.3 * seed
        runs += [
            run("static", seed, losses(3.0 + d, 4.2 + d, 5.4 + d)),
            run("even", seed, losses(3.9 + d, 4.2 + d, 4.2 + d)),
            run(
                "velocitune",
                seed,
                losses(3.0 + d, 4.2 + d, 5.4 + d - lower),
                weights={0: ORIGINAL, 5: losses(0.3, 0.2, 0.5)},
                uses_targets=True,
            ),
        ]
    return comparison(*runs, **{"frontier": ["static", "even"], **changes})


def drawn(strategies: int = 12, seeds: int = 5, domains: int = 6) -> Comparison:
    """A comparison as large as real ones, from a random generator: half constant mixtures, half dynamic strategies."""
    numbers = np.random.default_rng(0)
    names = [f"domain-{index}" for index in range(domains - 1)] + ["general"]
    original = dict(zip(names, np.array([1 / (rank + 1) for rank in range(domains)]), strict=True))
    original = {name: weight / sum(original.values()) for name, weight in original.items()}
    initial = {name: 4.5 + 0.3 * index for index, name in enumerate(names)}
    constant = ["static", *(f"temperature-{number}" for number in range(2, (strategies + 1) // 2))]
    others = ["velocitune", "velocitune-retain", "doremi", "odm", "ado", "velocitune-random-targets"]
    dynamic = (others + [f"searched-{number}" for number in range(strategies)])[: strategies - len(constant)]
    even = dict.fromkeys(names, 1 / domains)
    runs = []
    for seed in range(1, seeds + 1):
        noise = dict(zip(names, numbers.normal(0, 0.004, domains), strict=True))
        for index, label in enumerate(constant + dynamic):
            share = index / len(constant) if label in constant else 0.3 + 0.1 * (index % 5)
            last = {name: original[name] + share * (even[name] - original[name]) for name in names}
            own = numbers.normal(0, 0.003, domains)
            gained = {
                name: 0.004 * (index % 4 - 1.5) * (label in dynamic) + noise[name] + own[number]
                for number, name in enumerate(names)
            }
            runs.append(_drawn_run(label, seed, initial, original, last, gained, label in dynamic))
    return comparison(
        *runs,
        frontier=constant,
        retained=["general"],
        initial=initial,
        targets={name: loss - 1.2 for name, loss in initial.items()},
        initial_domain_weights=original,
        domain_tokens={name: round(1_500_000 * weight) for name, weight in original.items()},
        proxy_tokens=1_300_000,
        proxy_seconds=150.0,
    )


def _drawn_run(
    label: str,
    seed: int,
    initial: dict[str, float],
    original: dict[str, float],
    last: dict[str, float],
    gained: dict[str, float],
    dynamic: bool,
) -> ComparedRun:
    tokens, updates = 1_500_000, 20

    def at(done: float) -> dict[str, float]:
        """More weight teaches more, ever less so; what has little of it is forgotten."""
        noise = np.random.default_rng(seed * 1000 + round(done * 100)).normal(0, 0.002)
        moved = {name: -1.5 * (done * last[name]) ** 0.4 for name in initial}
        moved["general"] = 0.25 * done**0.3 * (1 - 4 * last["general"])
        return {name: loss + moved[name] + gained[name] * done + noise for name, loss in initial.items()}

    def weights(done: float) -> dict[str, float]:
        moved = min(1.0, 2 * done)
        return {name: original[name] + moved * (last[name] - original[name]) for name in original}

    searched = label == "doremi"
    return run(
        label,
        seed,
        at(1.0),
        points={round(tokens * step / updates): at(step / updates) for step in range(1, updates)},
        weights={18 * step: weights(step / updates) for step in range(updates)} if dynamic else {0: last},
        tokens_per_domain={name: round(tokens * weight) for name, weight in last.items()},
        tokens=tokens,
        steps=360,
        seconds=Timings(training=150 + seed, evaluation=12.0, reweighting=1.0 * dynamic, total=170.0 + seed),
        search_tokens=1_500_000 * searched,
        search_seconds=190.0 * searched,
        uses_targets=label.startswith("velocitune"),
        downstream={"commands": 1.2 - 0.01 * len(label), "code": 0.9 + 0.001 * seed},
    )
