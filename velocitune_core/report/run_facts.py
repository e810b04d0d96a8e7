"""What a report says of a run beside its losses: how it was made, what it learnt and forgot, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from velocitune_core.report.figures.training import StepPoint
from velocitune_core.report.headline import CONSTANT, chosen_strategy
from velocitune_core.report.report_data import ReportData
from velocitune_core.style.text import counted, difference_text, duration, percent, signed, tokens_text


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run beside its results; empty or None: not known."""

    model: str = ""  # folder or hub id that it started from
    started: float | None = None  # seconds since the Unix epoch
    finished: float | None = None
    commit: str = ""
    hardware: str = ""
    seed: int | None = None
    steps: Sequence[StepPoint] = ()  # that were logged
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)  # of held-out text, UTF-8, by domain
    changed_settings: str = ""  # YAML: those that differ from their default


class Tile(NamedTuple):
    """One number at the top of a page, with what it is and a line below it."""

    label: str
    value: str
    below: str = ""


def tiles(report: ReportData, facts: RunFacts) -> list[Tile]:
    """Return the numbers at the top of the page."""
    names = sorted(report.train.final)
    before, after = (
        sum(each[name] for name in names) / len(names) for each in (report.initial.losses, report.train.final)
    )
    change = f"{difference_text(100 * (after / before - 1), 1)} %, {before:.3f} → {after:.3f} nats per token"
    learnt, forgotten = learnt_and_forgotten(report)
    share = percent(forgotten / learnt) if learnt else "nothing learnt"
    updates = 0 if report.train.strategy in CONSTANT else max(0, len(report.train.domain_weights) - 1)
    found = [
        Tile("Mean held-out loss" if len(names) > 1 else "Held-out loss", signed(after - before, 3), change),
        Tile("Perplexity", f"{math.exp(before):.1f} → {math.exp(after):.1f}", "of the mean loss: e to its power"),
        Tile("Forgotten of learnt", share, f"{forgotten:.3f} of {learnt:.3f} nats, mean over domains"),
        Tile(
            "Weight updates",
            str(updates),
            f"in {report.train.steps:,} steps, {tokens_text(report.train.tokens)} tokens",
        ),
    ]
    if (bits := bits_per_byte(report, facts, report.train.final)) and len(bits) == len(names):
        first = bits_per_byte(report, facts, report.initial.losses)
        ends = [sum(each.values()) / len(names) for each in (first, bits)]
        found.insert(2, Tile("Bits per byte", f"{ends[0]:.3f} → {ends[1]:.3f}", "of held-out text, mean over domains"))
    return [*found, _cost_tile(report)]


def _cost_tile(report: ReportData) -> Tile:
    """Return what the run and all before it took."""
    train, before = report.train, [(each.tokens, each.seconds) for each in report.proxies]
    if report.weights is not None:
        before += [(each.tokens, each.seconds) for each in report.weights.own_runs]
    seconds = train.seconds.total + sum(each[1] for each in before)
    extra = sum(each[0] for each in before) / train.tokens if train.tokens else 0.0
    runs = (
        f"{counted(len(before), 'run')} before it read {percent(extra, 0)} of its tokens"
        if before
        else "no run before it"
    )
    return Tile("Time of training", duration(seconds), f"{duration(train.seconds.total)} for the run; {runs}")


def learnt_and_forgotten(report: ReportData) -> tuple[float, float]:
    """Return by how much losses fell, and by how much others rose: sums over domains over their number, nats per token.

    The first minus the second is the fall of the mean held-out loss.
    """
    changes = [report.initial.losses[name] - loss for name, loss in report.train.final.items()]
    return tuple(math.fsum(max(0.0, sign * each) for each in changes) / len(changes) for sign in (1, -1))  # type: ignore[return-value]


def bits_per_byte(report: ReportData, facts: RunFacts, losses: Mapping[str, float]) -> dict[str, float]:
    """Return bits per byte of held-out text, of the domains whose bytes per token are known."""
    known = facts.bytes_per_token
    return {name: losses[name] / (math.log(2) * known[name]) for name in sorted(report.train.final) if name in known}


def fact_rows(report: ReportData, facts: RunFacts) -> dict[str, str]:
    """Return how the run was made, label → text, without what is not known."""
    train = report.train
    when = [datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (facts.started, facts.finished) if at]
    rate = f"{train.tokens_per_second:,.0f} tokens per second"
    resumed = f", resumed {counted(train.resumed, 'time')}" if train.resumed else ""
    rows = {
        "model": f"{facts.model} ({tokens_text(train.parameters)} parameters)".strip(),
        "strategy": chosen_strategy(report),
        "date": f"{' to '.join(when)} UTC" if when else "",
        "duration": f"{duration(train.seconds.total)}, {rate}{resumed}",
        "hardware": facts.hardware,
        "precision": train.precision,
        "seed": "" if facts.seed is None else str(facts.seed),
        "budget": f"{train.tokens:,} tokens in {train.steps:,} steps",
        "sequences": f"{report.manifest.sequence_length} tokens",
        "commit": facts.commit,
        **report.extras,
    }
    return {name: text for name, text in rows.items() if text}


def day(facts: RunFacts) -> str:
    """Return the day on which the run finished, or nothing."""
    at = facts.finished or facts.started
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%-d %B %Y")
