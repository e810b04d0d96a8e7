"""Steps of runs, and what is wrong with them as far as the settings alone show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import FEWEST_POINTS, Params, Training
from velocitune_core.config.compared_runs import LawPoints
from velocitune_core.strategies import PLANNED, StrategyError, search_share
from velocitune_core.style.text import counted
from velocitune_core.train.schedule import longest_warmup

MOST_STEPS_TRIED = 10_000  # for a budget in which all points differ: fractions may be almost equal


def part_of(steps: int, fraction: float) -> int:
    """Return the steps of a run on a fraction of the budget."""
    return max(1, round(fraction * steps))


def budget_problems(params: Params, comparing: bool = False) -> list[str]:
    """Return what is wrong with token budgets that the settings name; others need the packed text."""
    problems = []
    if params.base is not None and (steps := _budget(params, params.base.training)) is not None:
        problems += _length_problems(params, params.base.training, "base.training", {"the base": steps})
    if (steps := _budget(params, params.training)) is not None:
        problems += _length_problems(params, params.training, "training", planned_runs(params, steps))
        problems += _points_problems(params, steps, comparing) if steps else []
    return problems


def planned_runs(params: Params, steps: int) -> dict[str, int]:
    """Return the steps of the pipeline's runs by name, the last of them the training, whose steps are given.

    What cannot be found for an option of the strategy that is refused is left out.
    """
    runs = {f"the proxies of {fraction:g}": part_of(steps, fraction) for fraction in params.proxies.fractions}
    try:
        if share := params.strategy.search or search_share(params.strategy.name):
            runs["the search"] = part_of(steps, share)
        if params.strategy.name == PLANNED:
            fractions = mixture_of(params, params.strategy.options).swarm.fractions
            runs |= {f"the swarm of {fraction:g}": part_of(steps, fraction) for fraction in fractions}
    except (StrategyError, ValueError):
        pass  # reported where strategies are checked
    return {**runs, "the training": steps}


def less_than_a_step(training: Training, sequences: int, sequence_length: int, section: str) -> str:
    """Return what is wrong with a budget of so many sequences, which are no step."""
    batch, budget = training.batch_sequences, training.token_budget
    short = f"less than one step of {batch}"
    if budget is None:
        have = f"one epoch has {counted(sequences, 'sequence')}, {short}"
        return f"{section}.batch_sequences: {batch}, and {have}; lower it, or add text"
    fewest = f"at least {batch * sequence_length}"
    have = f"{counted(budget, 'token')} make {counted(sequences, 'sequence')} of {sequence_length}, {short}"
    return f"{section}.token_budget: {have}; give {fewest}, or lower {section}.batch_sequences"


def warmup_problem(section: str, training: Training, runs: Mapping[str, int]) -> str | None:
    """Return in which runs `warmup_steps` does not end before the decay of the learning rate; None: in all it does.

    Args:
        section: of params.yaml, that holds `schedule`.
        runs: total steps by name of the run.
    """
    schedule = training.schedule
    if (warmup := schedule.warmup_steps) is None:
        return None
    limits = {run: longest_warmup(schedule, steps) for run, steps in runs.items()}
    short = [f"{run} ({runs[run]} steps: at most {limit})" for run, limit in limits.items() if warmup > limit]
    if not short:
        return None
    end = "ends after the decay begins" if schedule.kind == "wsd" else "does not end"
    return (
        f"{section}.schedule.warmup_steps: a warm-up of {warmup} steps {end} in {', '.join(short)}; set it to at "
        f"most {min(limits.values())}, set warmup_fraction instead, or make these runs longer"
    )


def _budget(params: Params, training: Training) -> int | None:
    """Return the steps of a token budget; None without one."""
    if training.token_budget is None:
        return None
    return training.token_budget // params.data.sequence_length // training.batch_sequences


def _length_problems(params: Params, training: Training, section: str, runs: Mapping[str, int]) -> list[str]:
    *_, steps = runs.values()
    if not steps:
        length = params.data.sequence_length
        return [less_than_a_step(training, (training.token_budget or 0) // length, length, section)]
    problem = warmup_problem(section, training, runs)
    return [] if problem is None else [problem]


def _points_problems(params: Params, steps: int, comparing: bool) -> Iterator[str]:
    """Yield which laws would have too few points of different size, in a budget of so many steps."""
    fractions, points = params.proxies.fractions, params.targets.points
    laws: list[tuple[str, Sequence[float], LawPoints]] = [("proxies.fractions", fractions, points)]
    for label, run in params.compare.runs.items() if comparing and params.compare is not None else ():
        if (own := run.own_targets) is not None:
            laws.append((f"compare.runs.{label}.targets", own.fractions or fractions, own.points or points))
    for field, theirs, kind in laws:
        if len(found := _sizes(steps, theirs, kind, params.proxies.evaluations)) < FEWEST_POINTS:
            longer = range(steps, steps + MOST_STEPS_TRIED)
            enough = next((n for n in longer if _has_points(n, theirs, kind, params.proxies.evaluations)), None)
            fix = "take sizes that are further apart"
            if enough is not None:
                fix = f"give at least {enough * params.training.batch_sequences * params.data.sequence_length}"
            yield (
                f"training.token_budget: in {counted(steps, 'step')}, the points of {field} are at steps "
                f"{', '.join(map(str, found))}, and a scaling law needs {FEWEST_POINTS} of different size; {fix}"
            )


def _has_points(steps: int, fractions: Sequence[float], kind: LawPoints, evaluations: int) -> bool:
    return len(_sizes(steps, fractions, kind, evaluations)) >= FEWEST_POINTS


def _sizes(steps: int, fractions: Sequence[float], kind: LawPoints, evaluations: int) -> list[int]:
    """Return the steps of the points that a law is fitted to, each once."""
    lengths = sorted({part_of(steps, fraction) for fraction in fractions})
    if kind == "final":
        return lengths
    every = -(-lengths[-1] // evaluations)
    return [*range(every, lengths[-1], every), lengths[-1]]
