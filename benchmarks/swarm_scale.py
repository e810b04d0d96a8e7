"""How well swarms of each model and length predict whole runs: `python <here>/swarm_scale.py` in a workspace.

Whole runs are those of `model.path` at the full budget that held one mixture; what they reached is their difference to
static training of the same seed. Runs in `runs/` under constant mixtures are grouped by model, fraction and seed. A law
of each kind is fitted to each group, and to those of all seeds together. Prints the miss of the predicted differences
in nats: of the macro average (median, and mean with its sign), by size (median), of a set (mean), and the correlation
of the macro averages; and the price of the group in whole runs.

With `--retained general` it also prints the plan of each group for "learnt domains down, general no worse than static",
what the group's law predicts for it, and what a law says that is fitted to the longest swarms of the same model of all
other seeds: runs that the plan has not seen.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.runs.price import flops_of
from tasks.views.terminal import print_table
from tasks.workspace import paths
from velocitune_core.config import load_params
from velocitune_core.contracts import Manifest, TrainResult
from velocitune_core.mixture_law import fit_mixture_law
from velocitune_core.mixture_law.law import LawName, MixtureLaw
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.train.job import TrainJob, read_job

LAWS: tuple[LawName, ...] = ("transfer", "loglinear", "bimix", "auto")
RESAMPLES = 20  # of a plan
CONSTANT = 1e-6  # how far weights may move in a run that held them
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Run:
    name: str
    model: str  # its parameters' SHA-256
    fraction: float
    seed: int
    weights: Weights  # shares of the tokens that it was trained on
    losses: Weights
    flops: float


@dataclass(frozen=True)
class Whole:
    """A mixture's differences to static training of the same seed."""

    weights: Weights
    differences: Weights


def finished_runs(manifest: Manifest) -> list[Run]:
    """Return the finished runs that held one mixture."""
    found = []
    for file in sorted(paths.RUNS.glob("*/result.json")):
        job = read_job(file.with_name("job.json"))
        if not isinstance(job, TrainJob) or set(job.domains) != set(manifest.domains):
            continue
        result = TrainResult.read(file)
        weights = [point.weights for point in result.domain_weights]
        if any(abs(each[name] - weights[0][name]) > CONSTANT for each in weights for name in each):
            continue
        trained = sum(result.tokens_per_domain.values())
        weights = {name: tokens / trained for name, tokens in result.tokens_per_domain.items()}
        name, seed = file.parent.name, job.training.seed
        run = Run(name, job.model_sha256, job.fraction, seed, weights, result.final, flops_of(job, manifest))
        found.append(run)
    return found


def whole_runs(runs: Sequence[Run], model: str) -> list[Whole]:
    """Return what mixtures of the model itself reached at the full budget, against static training."""
    whole = [run for run in runs if run.model == model and run.fraction == 1 and not run.name.startswith("swarm-")]
    base = {run.seed: run for run in whole if run.name.startswith("static-")}
    return [
        Whole(run.weights, {name: loss - base[run.seed].losses[name] for name, loss in run.losses.items()})
        for run in whole
        if run.seed in base and run is not base[run.seed]
    ]


def law_of(group: Sequence[Run], names: Sequence[str], law: LawName, bootstrap: int = 0) -> MixtureLaw:
    weights = {name: [run.weights[name] for run in group] for name in names}
    return fit_mixture_law(
        weights, {name: [run.losses[name] for run in group] for name in names}, law=law, bootstrap=bootstrap
    )


def misses(group: Sequence[Run], whole: Sequence[Whole], static: Weights, law: LawName) -> dict[str, str]:
    names = list(static)
    fitted = law_of(group, names, law)
    start = fitted.predict(static)
    predicted = np.array([[fitted.predict(each.weights)[n] - start[n] for n in names] for each in whole])
    reached = np.array([[each.differences[name] for name in names] for each in whole])
    off, sizes = predicted - reached, np.array([static[name] for name in names])
    return {
        "macro": f"{np.median(np.abs(off.mean(axis=1))):.4f}",
        "with sign": f"{off.mean():+.4f}",
        "by size": f"{np.median(np.abs(off @ sizes)):.4f}",
        "set": f"{np.abs(off).mean():.4f}",
        "correlation": f"{np.corrcoef(predicted.mean(axis=1), reached.mean(axis=1))[0, 1]:.2f}",
    }


def planned(
    group: Sequence[Run], judges: Sequence[Run], static: Weights, law: LawName, retained: str
) -> dict[str, str]:
    """Return what the plan of a group is predicted to reach, and what the law of other runs says of it."""
    names = list(static)
    learnt = {name: 1.0 for name in names if name != retained}
    objective = Objective(average=learnt, initial_weights=static, worse_than_static={retained: 0.0})
    try:
        plan = optimise_mixture(law_of(group, names, law, RESAMPLES), objective)
    except ObjectiveError:
        return {"predicted": "no mixture"}
    judge = law_of(judges, names, "transfer")
    start = judge.predict(static)

    def says(weights: Weights) -> tuple[float, float]:
        there = judge.predict(weights)
        return float(np.mean([there[n] - start[n] for n in learnt])), float(there[retained] - start[retained])

    by_name = {"plan": plan.weights, "T = 3": {name: share ** (1 / 3) for name, share in static.items()}}
    found = {"predicted": f"{plan.mixtures['recommended'].differences[plan.average].value:+.4f}"}
    for name, weights in by_name.items():
        total = sum(weights.values())
        average, guarded = says({each: weight / total for each, weight in weights.items()})
        found |= {name: f"{average:+.4f}", f"{retained}, {name}": f"{guarded:+.4f}"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="*", default=[], help="also the first so many runs of each group")
    parser.add_argument("--retained", metavar="SET", help="plan with this set no worse than under static training")
    arguments = parser.parse_args()
    params, manifest = load_params(paths.PARAMS), Manifest.read(paths.MANIFEST)
    tokens = {name: domain.train.tokens for name, domain in manifest.domains.items()}
    static = params.mixture.initial_domain_weights or {n: each / sum(tokens.values()) for n, each in tokens.items()}
    runs = finished_runs(manifest)
    (main_run,) = [run for run in runs if run.name.startswith("static-")][:1]
    whole = whole_runs(runs, main_run.model)
    groups: dict[tuple[str, float, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.name.startswith(("swarm-", "proxy-")):
            for seed in (str(run.seed), "all"):
                groups[run.model, run.fraction, seed].append(run)
    longest = max(fraction for _, fraction, seed in groups if seed == "all")
    rows, plans = [], []
    for (model, fraction, seed), group in sorted(groups.items()):
        if len(group) <= len(static):
            continue
        named = "itself" if model == main_run.model else f"{group[0].flops / main_run.flops / fraction:.2f} of its work"
        for count in sorted({len(group), *(each for each in arguments.runs if each < len(group) and seed != "all")}):
            chosen = group[:count]
            price = sum(run.flops for run in chosen) / main_run.flops
            row = {
                "model": named,
                "fraction": f"{fraction:g}",
                "seed": seed,
                "runs": str(count),
                "price": f"{price:.2f}",
            }
            for law in LAWS:
                rows.append(row | {"law": law} | misses(chosen, whole, static, law))
                others = [run for run in groups.get((model, longest, "all"), []) if str(run.seed) != seed]
                if arguments.retained and seed != "all" and len(others) > len(static):
                    plans.append(row | {"law": law} | planned(chosen, others, static, law, arguments.retained))
    print_table(f"Predicted against {len(whole)} whole runs, nats", rows)
    if plans:
        print_table(f"Learnt domains, {arguments.retained} no worse than static, by laws of other seeds, nats", plans)


if __name__ == "__main__":
    main()
