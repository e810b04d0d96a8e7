"""The metrics of MLflow in the events of a run. MLflow draws those of one prefix in one section of charts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from velocitune_core.train import events

logger = logging.getLogger(__name__)
LONGEST_NAME = 250  # MLflow's limit
MACRO, SIZE_WEIGHTED = "average_loss/macro", "average_loss/size_weighted"


@dataclass(frozen=True)
class Known:
    """What is known of a run before it starts, by domain. Losses are in nats per token."""

    initial_losses: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    initial_domain_weights: Mapping[str, float] = field(default_factory=dict)


def with_names_of_mlflow(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics whose names MLflow takes, and warn of others: of one of them it refuses all that come with it.

    A name is put together, such as that of a compared label's loss on a domain.
    """
    too_long = [name for name in metrics if len(name) > LONGEST_NAME]
    for name in too_long:
        logger.warning("MLflow takes no name of more than %d characters: %s is left out", LONGEST_NAME, name)
    return {name: value for name, value in metrics.items() if name not in too_long}


def metrics_of(event: events.Event, known: Known | None = None) -> Iterator[tuple[str, float]]:
    """Yield the metrics of an event by name.

    The losses before the run are those of step 0, which no event has, and targets those of its first and last step:
    charts show a line, and forgetting as forgetting.
    """
    known = known or Known()
    match event:
        case events.Stepped():
            yield "train/loss", event.loss
            yield "train/learning_rate", event.learning_rate
            yield "train/gradient_norm", event.gradient_norm
            yield "train/tokens_per_second", event.tokens_per_second
            yield from _per_domain("tokens", event.domain_tokens)
            yield from _per_domain("epochs", event.domain_epochs)
        case events.Evaluated():
            yield from _losses(event.losses, known)
        case events.Reweighted():
            yield from _per_domain("weight", event.weights)
            yield from _per_domain("velocity", event.velocity or {})
            if event.step == 0:
                yield from _losses(known.initial_losses, known)
                yield from _per_domain("target", known.targets)
        case events.Finished():
            yield from _per_domain("target", known.targets)


def _losses(losses: Mapping[str, float], known: Known) -> Iterator[tuple[str, float]]:
    """Yield losses and their averages: of all domains alike, and by their initial domain weights."""
    yield from _per_domain("loss", losses)
    if losses:
        yield MACRO, sum(losses.values()) / len(losses)
    if losses and set(losses) == set(known.initial_domain_weights):
        yield SIZE_WEIGHTED, sum(known.initial_domain_weights[name] * loss for name, loss in losses.items())


def _per_domain(section: str, values: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    return ((f"{section}/{domain}", float(value)) for domain, value in values.items())
