"""Checks that runs can be compared: the same domains, tokens and steps, and finite losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from velocitune_core.contracts import ComparedRun, Comparison, ContractError


def check_comparison(comparison: Comparison) -> None:
    """Raise ContractError with all problems in one message unless all runs can be compared."""
    problems = [*_part_problems(comparison), *_run_problems(comparison)]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ContractError(f"these runs cannot be compared:\n{lines}")


def _part_problems(comparison: Comparison) -> Iterator[str]:
    present = sorted({run.label for run in comparison.runs})
    if comparison.baseline not in present:
        yield f"baseline {comparison.baseline!r} has no run: train it, or choose the baseline from {present}"
    for label in comparison.frontier:
        if label not in present:
            yield f"frontier names {label!r}, which has no run: train it, or remove it from compare.frontier"
    wanted = set(comparison.initial)
    if not wanted:
        yield "initial losses have no domain: run the stage initial"
    for part in ("targets", "initial_domain_weights", "domain_tokens"):
        if problem := _domain_problem(wanted, getattr(comparison, part)):
            yield f"{part}: {problem}: rerun the stages initial and targets"
    if unknown := sorted(set(comparison.retained) - wanted):
        yield f"retained: {unknown} are no domains: choose compare.retained from {sorted(wanted)}"


def _run_problems(comparison: Comparison) -> Iterator[str]:
    for (label, seed), count in sorted(Counter((run.label, run.seed) for run in comparison.runs).items()):
        if count > 1:
            yield f"{label}, seed {seed}: given {count} times: keep one of them"
    runs = sorted(comparison.runs, key=lambda run: (run.label != comparison.baseline, run.label, run.seed))
    for run in runs:
        where, result, first = f"{run.label}, seed {run.seed}", run.result, runs[0]
        if problem := _domains_of_run(set(comparison.initial), run):
            yield f"{where}: {problem}: train it on the domains of this comparison"
        for unit, ours, theirs in (
            ("tokens", result.tokens, first.result.tokens),
            ("steps", result.steps, first.result.steps),
        ):
            if ours != theirs:
                yield (
                    f"{where}: {ours} {unit}, but {first.label}, seed {first.seed} has {theirs}: "
                    "train both for the same budget"
                )
        losses = [result.final, *(point.losses for point in result.points)]
        if bad := sorted({name for each in losses for name, loss in each.items() if not math.isfinite(loss)}):
            yield f"{where}: losses of {bad} are not finite: train it again with a lower learning rate, or leave it out"


def _domains_of_run(wanted: set[str], run: ComparedRun) -> str:
    result = run.result
    parts = {"final losses": result.final, "tokens_per_domain": result.tokens_per_domain}
    parts |= {f"losses of step {point.step}": point.losses for point in result.points}
    parts |= {f"weights of step {point.step}": point.weights for point in result.domain_weights}
    problems = (f"{part} {problem}" for part, names in parts.items() if (problem := _domain_problem(wanted, names)))
    return next(problems, "")  # the others have the same cause


def _domain_problem(wanted: set[str], names: Mapping[str, object]) -> str:
    lacking, unknown = sorted(wanted - set(names)), sorted(set(names) - wanted)
    parts = [f"lack {lacking}"] * bool(lacking) + [f"have unknown {unknown}"] * bool(unknown)
    return " and ".join(parts)
