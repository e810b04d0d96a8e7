"""The answer of a pipeline in a sentence or two, the same on page, terminal, Prefect and MLflow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from velocitune_core.comparison.metrics import mean_loss
from velocitune_core.comparison.statistics import ComparisonSummary, Estimate, StrategySummary, summarise
from velocitune_core.comparison.tables import estimate_in_words
from velocitune_core.contracts import Comparison, TrainResult, overfitted_domains
from velocitune_core.report.compared_mixtures import mixture_block
from velocitune_core.report.prices import price_of_label, price_of_pipeline
from velocitune_core.report.report_data import ReportData
from velocitune_core.style.text import counted, difference_text, listed

STATIC = "static"
AVERAGE = "macro_average_loss"
CONSTANT = {STATIC, "uniform", "temperature"}  # strategies that never move the domain weights
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Answer:
    """What a pipeline found."""

    strategy: str  # name that the user chose, such as `recommended`
    sentence: str  # strategy, loss, cost, whether the mixture moved and beat static; plain text
    mixture: dict[str, float]  # mean domain weights of the training, by domain
    mixture_yaml: str  # the same as parts of params.yaml, to copy


def answer(report: ReportData) -> Answer:
    """Return the answer that a report gives."""
    strategy, mixture = chosen_strategy(report), report.train.mean_domain_weights
    still = immobile(report.train)
    moved = f"The mixture {still}." if still else ""
    found = (_reached(report, strategy), moved, _against_baseline(report, strategy), _overfitted(report))
    sentence = " ".join(each for each in found if each)
    return Answer(strategy, sentence, dict(mixture), mixture_block(mixture))


def immobile(train: TrainResult) -> str:
    """Return that a strategy which is to move the domain weights never did; else nothing."""
    start, *later = [point.weights for point in train.domain_weights]
    used = train.mean_domain_weights  # of batches: some strategies move them between evaluations
    moved = any(each != start for each in later) or any(abs(used[name] - start[name]) > _ROUNDING for name in start)
    if train.strategy in CONSTANT or len(start) == 1 or moved:
        return ""
    why = f"{counted(len(later), 'update')} changed nothing" if later else "no update; lower evaluation.every_steps"
    return f"did not move: all {train.steps} steps used the domain weights of the start ({why})"


def chosen_strategy(report: ReportData) -> str:
    """Return the strategy as the settings name it; the training may run under another, such as `static`."""
    return report.train.strategy if report.weights is None else report.weights.strategy


def comparison_answer(comparison: Comparison) -> str:
    """Return which label of a comparison has the lowest mean held-out loss, and whether it beat the baseline.

    Means over different seeds are not ranked: labels that lack a seed are left out, and if that leaves none to compare
    with the baseline, labels are ranked by their difference to it on the seeds of both.

    Raises ContractError for runs that cannot be compared.
    """
    summary = summarise(comparison)
    every, complete = list(summary.strategies.values()), _complete(summary)
    ranked, height = (complete, _average) if complete else (every, _above_baseline)
    best = min(ranked, key=lambda each: (height(each).mean, each.label != comparison.baseline))
    loss, seeds = estimate_in_words(_average(best), sign=False), counted(len(best.runs), "seed")
    count = counted(len(ranked), "strategy") + (" with all seeds" if len(ranked) < len(every) else "")
    lowest = f"the lowest mean held-out loss{'' if complete else ' on common seeds'}, {loss} nats per token"
    if len(every) == 1:
        return f"Only {best.label} was trained, with a mean held-out loss of {loss} nats per token over {seeds}."
    if best is summary.baseline:
        return f"Nothing beat {best.label}: of {count} it has {lowest} over {seeds}."
    found = f"Of {count}, {best.label} has {lowest} over {seeds}, {price_of_label(summary.comparison, best.label)}"
    return f"{found}. {_verdict(summary, best)}"


def _complete(summary: ComparisonSummary) -> list[StrategySummary]:
    """Return the strategies that have all seeds; none if the baseline, or each other one, lacks some."""
    found = [each for each in summary.strategies.values() if len(each.runs) == len(summary.seeds)]
    return found if summary.baseline in found and len(found) > 1 else []


def _above_baseline(strategy: StrategySummary) -> Estimate:
    return strategy.differences[AVERAGE] or Estimate(math.inf, None, 0)


def _reached(report: ReportData, strategy: str) -> str:
    """Return what the training did to the mean held-out loss, what became worse, and the price."""
    names = sorted(report.train.final)
    before, after = mean_loss(report.initial.losses, names), mean_loss(report.train.final, names)
    assert before is not None and after is not None, "a manifest has a domain"
    verb = "lowered" if after < before else "raised" if after > before else "left"
    of = f" of {len(names)} domains" if len(names) > 1 else ""
    change = f" ({difference_text(100 * (after / before - 1), 1)} %)" if before else ""
    worse = [name for name in names if report.train.final[name] > report.initial.losses[name]]
    what = "mean held-out loss" if of else "held-out loss"
    forgot = f"; worse than the base model on {listed(worse, 3)}" if worse else ""
    losses = f"from {before:.3f} to {after:.3f} nats per token{change}"
    return f"{strategy} {verb} the {what}{of} {losses}, {price_of_pipeline(report)}{forgot}."


def _overfitted(report: ReportData) -> str:
    """Return which domains got more and more of the batch while their losses rose; nothing if none did."""
    names = sorted(overfitted_domains(report.train.points, report.train.domain_weights))
    if not names:
        return ""
    one = len(names) == 1
    rose = "was probably overfitted: its loss rose" if one else "were probably overfitted: their losses rose"
    return f"{listed(names, 3)} {rose} while {'its weight' if one else 'their weights'} grew."


def _against_baseline(report: ReportData, strategy: str) -> str:
    """Return the difference to the baseline over the seeds of a comparison that holds this very run.

    Nothing for a run of the baseline itself.
    """
    comparison, recipe = report.comparison, report.train.recipe
    runs, baseline = ([], STATIC) if comparison is None else (comparison.runs, comparison.baseline)
    label = next((run.label for run in runs if recipe and run.result.recipe == recipe), None)
    if label == baseline or strategy == baseline == STATIC:
        return ""
    if comparison is None or label is None:
        return f"Whether it beat {baseline} training is in comparison/report after make compare or velocitune compare."
    summary = summarise(comparison)
    return _verdict(summary, summary.strategies[label])


def _verdict(summary: ComparisonSummary, ours: StrategySummary) -> str:
    """Return whether a label beat the baseline."""
    against, difference = summary.comparison.baseline, ours.differences[AVERAGE]
    if difference is None:
        return f"No seed has a run of {against} to compare it with."
    lower, seeds = difference.mean < 0, counted(difference.seeds, "seed")
    size = Estimate(abs(difference.mean), difference.half_width, difference.seeds)
    by = f"{estimate_in_words(size, sign=False)} nats"
    if difference.sign is None:
        side = f"{by} {'below' if lower else 'above'}" if difference.mean else "equal to"
        return f"It ended {side} {against}, which one seed does not decide."
    if difference.sign == 0:
        between = estimate_in_words(difference)
        return f"Its difference to {against}, {between} nats over {seeds}, may be chance."
    return f"It {'beat' if lower else 'lost to'} {against} by {by} over {seeds}."


def _average(strategy: StrategySummary) -> Estimate:
    found = strategy.metrics[AVERAGE]
    assert found is not None, "every run has losses"
    return found
