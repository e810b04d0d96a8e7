"""What each line of a comparison reaches of three stated objectives, at what price: `python benchmarks/objectives.py`.

Run it in the workspace of a comparison, or give folders of several comparisons of the same labels, one per seed, each
with `comparison.json`, `targets.json` and `report/plans`. Losses are of the text that steered, or with --fresh of other
held-out text, read from the CSV of `benchmarks/fresh_text.py`. Prints three tables per objective in Markdown: what is
reached against static training, the price, and predicted against reached. A planned label is named after its
objective: `planned-macro`, `planned-by-size`, `planned-learnt`, and what else it is.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.workspace import paths
from velocitune_core.comparison.frontier import Frontier
from velocitune_core.comparison.metrics import run_metrics
from velocitune_core.comparison.statistics import Estimate, estimate
from velocitune_core.contracts import ComparedRun, Comparison, StartingWeights, Targets
from velocitune_core.mixture_law.break_even import pays_from

Losses = Mapping[str, float]
Key = tuple[str, int]  # label, seed
ROUNDING = 5e-4  # nats: a guard that is broken by less is kept


class Stated(NamedTuple):
    """An average to be lowered, and a loss that should not be above static training's."""

    title: str
    average: Callable[[Losses], float]
    guard: Callable[[Losses], float] | None


@dataclass(frozen=True)
class Study:
    """Runs of all seeds, and what is needed to price them."""

    comparison: Comparison  # of all seeds
    targets: Targets
    losses: dict[Key, Losses]  # by held-out set, final
    plans: dict[Key, StartingWeights]

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(run.label for run in self.comparison.runs))

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.comparison.runs})

    @property
    def temperatures(self) -> list[str]:
        """Constant mixtures that cost nothing, the baseline among them."""
        return [self.comparison.baseline, *(x for x in self.comparison.frontier if x != self.comparison.baseline)]


def objectives(comparison: Comparison) -> list[Stated]:
    sizes, retained = comparison.initial_domain_weights, comparison.retained
    learnt = [name for name in sizes if name not in retained]

    def mean(names: Sequence[str]) -> Callable[[Losses], float]:
        return lambda losses: float(np.mean([losses[name] for name in names]))

    def by_size(losses: Losses) -> float:
        return sum(share * losses[name] for name, share in sizes.items())

    return [
        Stated("macro", mean(list(sizes)), None),
        Stated("by-size", mean(list(sizes)), by_size),
        Stated("learnt", mean(learnt), mean(retained)),
    ]


def read_study(folders: Sequence[Path], fresh: Path | None) -> Study:
    """Read comparisons of one seed each, or one of all seeds."""
    found = [Comparison.read(folder / "comparison.json") for folder in folders]
    runs = list({(run.label, run.seed): run for each in found for run in each.runs}.values())
    losses: dict[Key, Losses] = {(run.label, run.seed): run.result.final for run in runs}
    plans = {}
    for folder, each in zip(folders, found, strict=True):
        for run in each.runs:
            for name in (f"{run.label}-seed-{run.seed}", run.label):
                for plans_of in (folder / "report/plans", folder.parent / paths.COMPARISON_REPORT / paths.PLANS):
                    if (file := plans_of / f"{name}.json").is_file():
                        plans.setdefault((run.label, run.seed), StartingWeights.read(file))
    if fresh is not None:
        with fresh.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        other = {(row["strategy"], int(row["seed"])): row for row in rows}
        losses = {
            key: {name: float(other[key][f"loss_{name}"]) for name in losses[key]} for key in losses if key in other
        }
    comparison = found[0].model_copy(update={"runs": runs})
    return Study(comparison, Targets.read(folders[0] / "targets.json"), losses, plans)


def price(study: Study, run: ComparedRun) -> float:
    """Return what a line costs beyond its own run, in runs: searches, swarms, and proxies where it needs targets."""
    return run_metrics(study.comparison, run)["added_tokens"] or 0.0


def static_average(study: Study, stated: Stated) -> Callable[[float], float]:
    """Return the objective's average under static training by the laws of the targets, over tokens."""
    laws = {name: each.evidence.law for name, each in study.targets.domains.items() if each.evidence is not None}
    return lambda tokens: stated.average({name: float(law.predict(tokens)) for name, law in laws.items()})


def reached_rows(study: Study, stated: Stated) -> list[dict[str, str]]:
    value = {key: stated.average(losses) for key, losses in study.losses.items()}
    guard = {key: stated.guard(losses) if stated.guard else 0.0 for key, losses in study.losses.items()}
    base, rows = study.comparison.baseline, []
    tokens = study.comparison.runs[0].result.tokens
    static = static_average(study, stated)
    frontiers = {s: Frontier.through((guard[x, s], value[x, s]) for x in study.temperatures) for s in study.seeds}
    runs = {(run.label, run.seed): run for run in study.comparison.runs}
    for label in study.labels:
        seeds = [seed for seed in study.seeds if (label, seed) in value]
        gains = [value[label, seed] - value[base, seed] for seed in seeds]
        guards = [guard[label, seed] - guard[base, seed] for seed in seeds]
        distances = [frontiers[seed].distance(guard[label, seed], value[label, seed]) for seed in seeds]
        constant = label in study.temperatures
        better = [value[label, s] < _best_allowed(study, value, guard, label, s) for s in seeds if not constant]
        cost = float(np.mean([price(study, runs[label, seed]) for seed in seeds]))
        for_price = static(tokens * (1 + cost)) - static(tokens)
        from_size = pays_from(static, -float(np.mean(gains)), cost * tokens) if cost else None
        rows.append(
            {
                "line": label,
                "seeds": str(len(seeds)),
                f"{stated.title} to static": _nats(estimate(gains)),
                **(
                    {"guarded loss to static": _nats(estimate(guards)), "kept in": kept(guards)} if stated.guard else {}
                ),
                "to the frontier": _nats(estimate(distances)),
                "better than every constant that keeps as much": "–" if constant else f"{sum(better)} of {len(better)}",
                "price, runs": f"{cost:.2f}",
                "static for that price": f"{for_price:+.3f}" if cost else "–",
                "pays from, × its price": "–" if from_size is None else f"{from_size:.2g}",
            }
        )
    return rows


def kept(guards: Sequence[float]) -> str:
    """Return in how many seeds the guarded loss is no worse than static's."""
    return f"{sum(each <= ROUNDING for each in guards)} of {len(guards)}"


def _best_allowed(study: Study, value: Mapping[Key, float], guard: Mapping[Key, float], label: str, seed: int) -> float:
    """Return the best constant mixture whose guarded loss is no worse than static's, or than this line's."""
    allowed = max(guard[label, seed], guard[study.comparison.baseline, seed]) + ROUNDING
    return min(value[x, seed] for x in study.temperatures if guard[x, seed] <= allowed)


def predicted_rows(study: Study, stated: Stated) -> list[dict[str, str]]:
    """Return predicted against reached differences to static, of every planned line of this objective."""
    rows, base = [], study.comparison.baseline
    for label in study.labels:
        keys = [(label, seed) for seed in study.seeds if (label, seed) in study.plans and (label, seed) in study.losses]
        if not keys or f"-{stated.title}-" not in f"-{label}-":
            continue
        columns: dict[str, list[float]] = defaultdict(list)
        for key in keys:
            planned = study.plans[key].planned
            assert planned is not None
            recommended = planned.plan["mixtures"]["recommended"]
            ours, theirs = study.losses[key], study.losses[base, key[1]]
            predicted = {name: each["value"] for name, each in recommended["set_differences"].items()}
            reached = {name: ours[name] - theirs[name] for name in predicted}
            columns["predicted"].append(stated.average(predicted))
            columns["reached"].append(stated.average(reached))
            columns["missed"].append(stated.average(predicted) - stated.average(reached))
            if stated.guard:
                columns["guard predicted"].append(stated.guard(predicted))
                columns["guard reached"].append(stated.guard(reached))
            inside = [
                each["low"] <= reached[name] <= each["high"]
                for name, each in recommended["set_differences"].items()
                if each["low"] is not None
            ]
            columns["sets in their interval"].append(float(np.mean(inside)))
            columns["set missed by, median"].append(float(np.median([abs(predicted[n] - reached[n]) for n in reached])))
        rows.append(
            {
                "line": label,
                **{name: _nats(estimate(columns[name])) for name in columns if not name.startswith("set")},
                "set missed by, median": f"{np.mean(columns['set missed by, median']):.3f}",
                "sets in their interval": f"{np.mean(columns['sets in their interval']):.0%}",
            }
        )
    return rows


def weights_rows(study: Study) -> list[dict[str, str]]:
    rows = []
    for label in study.labels:
        runs = [run for run in study.comparison.runs if run.label == label]
        names = list(study.comparison.initial_domain_weights)
        found = np.array([[run.result.mean_domain_weights[name] for name in names] for run in runs])
        cells = {
            name: f"{mean:.1%} ± {sd:.1%}" for name, mean, sd in zip(names, found.mean(0), found.std(0), strict=True)
        }
        rows.append({"line": label, **cells})
    return rows


def _nats(found: Estimate | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:+.4f}" + ("" if found.half_width is None else f" ± {found.half_width:.4f}")


def print_markdown(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    print(f"\n{title}\n")
    if rows:
        print("| " + " | ".join(rows[0]) + " |")
        print("|" + "---|" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(row.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="of comparisons (default: that of this workspace)")
    parser.add_argument("--fresh", type=Path, help="CSV of benchmarks/fresh_text.py")
    arguments = parser.parse_args()
    study = read_study(arguments.folders or [paths.COMPARISON.parent], arguments.fresh)
    for stated in objectives(study.comparison):
        print_markdown(f"Reached: {stated.title}", reached_rows(study, stated))
        print_markdown(f"Predicted and reached: {stated.title}", predicted_rows(study, stated))
    print_markdown("Mean weights", weights_rows(study))


if __name__ == "__main__":
    main()
