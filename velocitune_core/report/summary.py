"""The numbers of a report: a row per domain, the metrics of metrics.json, and the answer in words.

`result_rows` is what the page, the terminal and the artifacts all show; `summary_metrics` is metrics.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from velocitune_core.contracts import ContractError, InitialLosses, Manifest, ProxyResult, Targets, TrainResult
from velocitune_core.report.figures.style import percent, tokens_text

FLAG_MEANINGS = {
    "too_few_points": "the law rests on so few proxies that its fit says little",
    "at_bound": "the fit ran into the edge of the allowed parameters",
    "wide_interval": "the interval of the target is wider than the configured share of it",
    "not_decreasing": "the proxies' losses do not fall with more tokens",
    "above_initial": "the target is not below the initial loss, so there is no gap to close",
    "missing_proxies": "some of the proxies failed, and the law rests on the others",
}


@dataclass(frozen=True)
class ReportData:
    """Everything a report is made from. Raises ContractError where the parts name different domains."""

    manifest: Manifest
    initial: InitialLosses
    proxies: tuple[ProxyResult, ...]
    targets: Targets
    train: TrainResult
    weights_0: Mapping[str, float]  # original domain weights
    config: str  # YAML text
    base: TrainResult | None = None  # the training of the base model, where the pipeline made it
    extras: Mapping[str, str] = field(default_factory=dict)  # shown with the configuration, such as versions

    def __post_init__(self) -> None:
        parts = {
            "initial losses": self.initial.losses,
            "targets": self.targets.domains,
            "training": self.train.final,
            "original weights": self.weights_0,
            **{f"proxy {proxy.name}": proxy.final.losses for proxy in self.proxies},
        }
        wanted = set(self.manifest.domains)
        problems = [
            f"  {part}: lacks {sorted(wanted - set(names))}, has unknown {sorted(set(names) - wanted)}"
            for part, names in parts.items()
            if set(names) != wanted
        ]
        if problems:
            lines = "\n".join(problems)
            raise ContractError(
                f"results disagree with the manifest's domains {sorted(wanted)}; rerun the stages named:\n{lines}"
            )


def result_rows(report: ReportData) -> list[dict[str, Any]]:
    """One row per domain in name order.

    Losses in nats per token; shares, gap_closed and target_error as fractions. gap_closed is None where the target is
    not below the initial loss; target_error is (target − reached) / reached.
    """
    train = report.train
    final_weights = train.domain_weights[-1].weights if train.domain_weights else report.weights_0
    rows = []
    for name in sorted(report.manifest.domains):
        initial, target = report.initial.losses[name], report.targets.domains[name]
        reached = train.final[name]
        rows.append(
            {
                "domain": name,
                "tokens": train.tokens_per_domain[name],
                "share_original": report.weights_0[name],
                "share_final": final_weights[name],
                "epochs": train.epochs_per_domain[name],
                "initial": initial,
                "target": target.target,
                "reached": reached,
                "gap_closed": (initial - reached) / (initial - target.target) if target.target < initial else None,
                "target_error": (target.target - reached) / reached if reached else None,
                "flags": list(target.flags),
                "worse_than_initial": reached > initial,
            }
        )
    return rows


def formatted_rows(report: ReportData) -> list[dict[str, str]]:
    """`result_rows` as text, column heading → cell, for tables that people read."""

    def cells(row: dict[str, Any]) -> dict[str, str]:
        gap, error = row["gap_closed"], row["target_error"]
        return {
            "domain": row["domain"],
            "tokens": tokens_text(row["tokens"]),
            "share, original → final": f"{percent(row['share_original'])} → {percent(row['share_final'])}",
            "epochs": f"{row['epochs']:.2f}",
            "initial": f"{row['initial']:.3f}",
            "target": f"{row['target']:.3f}",
            "reached": f"{row['reached']:.3f}" + (" ▲" if row["worse_than_initial"] else ""),
            "gap closed": "–" if gap is None else f"{gap * 100:.0f} %",
            "target error": "–" if error is None else f"{signed(error * 100, 1)} %",
            "flags": ", ".join(flag.replace("_", " ") for flag in row["flags"]),
        }

    return [cells(row) for row in result_rows(report)]


def summary_metrics(report: ReportData) -> dict[str, Any]:
    """The numbers of metrics.json; a number that does not exist for this run is left out.

    Losses in nats per token. size_weighted_loss weighs domains by their original weights; evaluation_share is
    evaluation plus reweighting over the training's wall time; worst_shortfall is the largest
    (reached − target) / (initial − target) over domains whose target is below their initial loss.
    """
    rows, train = result_rows(report), report.train
    shortfalls = [1 - row["gap_closed"] for row in rows if row["gap_closed"] is not None]
    metrics: dict[str, Any] = {
        "macro_average_loss": {
            when: sum(row[key] for row in rows) / len(rows)
            for when, key in (("initial", "initial"), ("final", "reached"))
        },
        "size_weighted_loss": {
            when: sum(row["share_original"] * row[key] for row in rows)
            for when, key in (("initial", "initial"), ("final", "reached"))
        },
        "loss": {row["domain"]: row["reached"] for row in rows},
        "target_error": {row["domain"]: row["target_error"] for row in rows if row["target_error"] is not None},
        "evaluation_share": evaluation_share(train),
        "tokens_per_second": train.tokens_per_second,
        "proxy_tokens_share": sum(proxy.tokens for proxy in report.proxies) / train.tokens if train.tokens else 0.0,
    }
    if shortfalls:
        metrics["worst_shortfall"] = max(shortfalls)
    return metrics


def evaluation_share(train: TrainResult) -> float:
    """Evaluation plus reweighting as a fraction of the training's wall time."""
    spent = train.seconds
    return (spent.evaluation + spent.reweighting) / spent.total if spent.total else 0.0


def answer(report: ReportData) -> str:
    """The result in a paragraph of plain words."""
    rows, metrics, train = result_rows(report), summary_metrics(report), report.train
    before, after = metrics["macro_average_loss"]["initial"], metrics["macro_average_loss"]["final"]
    over = f"the average held-out loss over the {len(rows)} domains" if len(rows) > 1 else "the held-out loss"
    went = "fell" if after < before else "rose" if after > before else "stayed"
    sentences = [
        f"In {tokens_text(train.tokens)} tokens with the strategy {train.strategy}, {over} {went} from {before:.3f} to "
        f"{after:.3f} nats per token ({signed(100 * (after / before - 1), 1)} %)."
    ]
    by_change = sorted(rows, key=lambda row: (row["reached"] - row["initial"], row["domain"]))
    gained = [row for row in by_change if row["reached"] < row["initial"]]
    worse = [row for row in reversed(by_change) if row["worse_than_initial"]]
    flagged = _flagged(rows)
    if gained and len(rows) > 1:
        sentences.append(f"{listed([_change(row) for row in gained[:3]])} gained most.")
    if worse:
        sentences.append(f"{listed([_change(row) for row in worse])} got worse than the base model.")
    elif len(rows) > 1:
        sentences.append("No domain got worse than the base model.")
    if flagged:
        sentences.append(f"Read these targets with care: {'; '.join(flagged)}.")
    sentences.append(
        f"Evaluation and reweighting took {percent(metrics['evaluation_share'])} of the training's wall time."
    )
    return " ".join(sentences)


def _change(row: dict[str, Any]) -> str:
    return f"{row['domain']} ({signed(row['reached'] - row['initial'], 2)} nats)"


def _flagged(rows: list[dict[str, Any]]) -> list[str]:
    """Each flag that was raised, with the domains it was raised for."""
    domains_of = {flag: [row["domain"] for row in rows if flag in row["flags"]] for flag in FLAG_MEANINGS}
    return [
        f"{flag.replace('_', ' ')} ({'all domains' if len(rows) > 1 and len(names) == len(rows) else listed(names)})"
        for flag, names in domains_of.items()
        if names
    ]


def signed(number: float, digits: int) -> str:
    return f"{number:+.{digits}f}".replace("-", "−")


def listed(names: list[str], at_most: int = 5) -> str:
    if len(names) > at_most:
        names = [*names[:at_most], f"{len(names) - at_most} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
