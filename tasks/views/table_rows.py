"""What each stage found, in Prefect's UI and on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.views.prefect_artifacts import publish_table
from tasks.views.prefect_runs import is_stage_of_pipeline
from tasks.views.terminal import print_lines, print_table
from tasks.views.weights_line import weights_text
from tasks.workspace.prefect_logging import UI_ONLY
from velocitune_core.contracts import (
    InitialLosses,
    Manifest,
    Planned,
    ProxyResult,
    StartingWeights,
    Targets,
    TrainResult,
)
from velocitune_core.report.swarm_rounds import round_rows
from velocitune_core.style.text import signed, tokens_text

logger = logging.getLogger(__name__)


def show_documents(counts: Mapping[str, int]) -> None:
    """Print the number of documents of each embedded domain."""
    print_lines([f"documents: {', '.join(f'{name} {count:,}' for name, count in counts.items())}"])


def show_mixture(manifest: Manifest, initial_domain_weights: Mapping[str, float]) -> None:
    """Show what the mixture consists of. Call it from within a flow, as all of these."""
    rows = mixture_rows(manifest, initial_domain_weights)
    publish_table("mixture", "The mixture, by domain", rows)
    print_table("Mixture", rows, optional=("duplicates dropped", "held-out tokens", "documents"))


def show_initial(initial: InitialLosses) -> None:
    """Show the held-out losses of the base model."""
    rows = [{"domain": name, "loss": round(loss, 4)} for name, loss in (initial.losses | initial.measured).items()]
    publish_table("initial", "Held-out losses of the base model, nats per token", rows)
    print_lines([f"base model: {losses_text(initial.losses)}"])


def show_proxies(proxies: Sequence[ProxyResult]) -> None:
    """Show the losses that the proxies ended with."""
    rows = [
        {"proxy": each.name, "tokens": each.tokens, "seconds": round(each.seconds, 1)}
        | {name: round(loss, 4) for name, loss in each.final.losses.items()}
        for each in proxies
    ]
    publish_table("proxies", "Held-out losses of the proxies, nats per token", rows)
    found = [f"{_mean(each.final.losses)} after {tokens_text(each.tokens)} tokens" for each in proxies]
    print_lines([f"proxies: mean held-out loss {', '.join(found)}"])


def show_trained(train: TrainResult) -> None:
    """Print what the training reached, and how its weights moved; in a pipeline the last table has that."""
    start, last = train.domain_weights[0].weights, train.domain_weights[-1].weights
    moved = [f"weights: {weights_text(start, last)}"] if start != last else []
    if not is_stage_of_pipeline():
        print_lines([f"{train.name}: {losses_text(train.final)}", *moved])


def losses_text(losses: Mapping[str, float]) -> str:
    """Return the mean of held-out losses, and each of them."""
    return f"mean held-out loss {_mean(losses)} ({', '.join(f'{name} {loss:.3f}' for name, loss in losses.items())})"


def _mean(losses: Mapping[str, float]) -> str:
    return f"{sum(losses.values()) / len(losses):.3f}"


def show_targets(targets: Targets, initial_losses: Mapping[str, float]) -> None:
    """Show the target losses with their evidence."""
    rows = target_rows(targets, initial_losses)
    publish_table("targets", "Target losses in nats per token, with their evidence", rows)
    if not is_stage_of_pipeline():  # the last table of a report has them; a comparison prints them itself
        print_targets(targets, initial_losses)


def print_targets(targets: Targets, initial_losses: Mapping[str, float]) -> None:
    """Print the target losses with their evidence."""
    rows = target_rows(targets, initial_losses)
    print_table("Targets", rows, optional=("the other law", "law", "points", "left-out error", "interval"))


def show_weights(found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> None:
    """Show the domain weights that the training starts from; of a plan, predictions, what binds, and the price too."""
    rows = weights_rows(found, initial_domain_weights)
    publish_table("weights", "Domain weights that the training starts from", rows)
    if found.planned is not None:
        rows = prediction_rows(found.planned)
        publish_table("predictions", "Differences to static training that a plan predicts, nats per token", rows)
        if found.planned.rounds:
            publish_table("rounds", "Rounds of the swarm: what is known after each", round_rows(found.planned.rounds))
    if found.found_by == "search" and is_stage_of_pipeline():  # the table of the result has them too
        how = "holds" if found.held else "starts from"
        _print_and_log([f"{found.strategy} {how} {weights_text(initial_domain_weights, found.domain_weights)}"])
    else:
        print_weights(found, initial_domain_weights)


def print_weights(found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> None:
    """Print what `show_weights` shows, outside of a flow too."""
    if found.found_by == "initial":
        print_lines([f"{found.strategy} starts from the initial weights"])
    else:
        print_table("Weights", weights_rows(found, initial_domain_weights))
    if found.planned is not None:
        print_table("Predicted differences to static training, nats per token", prediction_rows(found.planned))
        if found.planned.rounds:
            print_table("Rounds of the swarm, nats per token", round_rows(found.planned.rounds))
        _print_and_log(found.planned.explanation)


def _print_and_log(lines: Sequence[str]) -> None:
    """Print lines that no table of Prefect's has, and log them on the flow run."""
    print_lines(lines)
    for line in lines:
        logger.info("%s", line, extra=UI_ONLY)


def mixture_rows(manifest: Manifest, initial_domain_weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: documents, tokens, duplicates and initial domain weight."""
    return [
        {
            "domain": name,
            "documents": domain.train.documents,
            "train tokens": domain.train.tokens,
            "held-out tokens": domain.held_out.tokens,
            "duplicates dropped": domain.duplicates,
            **({"files not read": domain.left_out} if any(each.left_out for each in manifest.domains.values()) else {}),
            "initial weight": round(initial_domain_weights[name], 4),
        }
        for name, domain in manifest.domains.items()
    ]


def target_rows(targets: Targets, initial_losses: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: initial and target loss in nats per token, and the evidence for the target."""
    rows = []
    for name, domain in targets.domains.items():
        evidence = domain.evidence
        interval = evidence.interval if evidence else None
        error = evidence.leave_largest_out_error if evidence else None
        other = evidence.other_law if evidence else None
        rows.append(
            {
                "domain": name,
                "initial": round(initial_losses[name], 4),
                "target": round(domain.target, 4),
                "interval": f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "",
                "law": evidence.law.kind if evidence else "given by hand",
                "the other law": f"{other.target:.4f}" if other else "",
                "points": len(evidence.tokens) if evidence else 0,
                "left-out error": f"{signed(100 * error, 2)} %" if error is not None else "",
                "flags": ", ".join(domain.flags),
            }
        )
    return rows


def weights_rows(found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: initial weight and the one that the training starts from; of a plan, its optima too."""
    how = "holds" if found.held else "starts from"
    rows = [
        {"domain": name, "initial weight": round(initial_domain_weights[name], 4), how: round(weight, 4)}
        for name, weight in found.domain_weights.items()
    ]
    spread = found.planned.plan["spread"] if found.planned is not None else {}
    return [row | ({"over resamples": _range(spread[row["domain"]])} if spread else {}) for row in rows]


def prediction_rows(planned: Planned) -> list[dict[str, Any]]:
    """Return a row per average and held-out set: the predicted difference to static training, for some mixtures."""
    mixtures = {name: each for name, each in planned.plan["mixtures"].items() if name not in {"static", "optimum"}}
    recommended = mixtures["recommended"]
    return [
        {"of": name, "interval": _range(recommended[kind][name], signed)}
        | {mixture: signed(each[kind][name]["value"], 3) for mixture, each in mixtures.items()}
        for kind in ("differences", "set_differences")
        for name in recommended[kind]
    ]


def _range(interval: Mapping[str, float | None], text: Callable[[float, int], str] = "{:.{}f}".format) -> str:
    """Return an interval, its ends with three decimals by `text`: of differences with their sign."""
    low, high = interval["low"], interval["high"]
    return "" if low is None or high is None else f"{text(low, 3)} … {text(high, 3)}"
