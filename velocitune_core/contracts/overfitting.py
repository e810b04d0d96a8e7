"""Domains that get more and more of the batch while their held-out loss rises.

Under a strategy that gives more to domains far from their target this is a feedback: the text is overfitted, more of it
raises the loss, and the higher loss brings still more of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from velocitune_core.contracts.contract import Part
from velocitune_core.contracts.losses import LossPoint
from velocitune_core.contracts.train_result import WeightPoint

RISE_NATS = 0.05  # of the held-out loss above its lowest; runs without a fault stay below it (docs/DECISIONS.md)
GROWTH = 1.01  # of the weight since then; less is rounding, or a weight that is held
REMEDY = (
    "training.max_epochs caps how often a text is repeated, strategy.options.gap_policy: hold keeps the weight of a "
    "domain without a gap, and the training under strategy.name: recommended holds the weights that its search found"
)


class Overfitting(Part):
    """The evaluation at which a domain was first found overfitted, and the one of its lowest loss before that.

    Losses are held-out losses in nats per token; a weight is that of the batches just before the evaluation.
    """

    lowest_step: int
    lowest_loss: float
    lowest_weight: float  # at that step
    step: int
    loss: float
    weight: float
    epochs: float | None = None  # of the domain's text until `step`, in this run; None: not known

    def described(self, domain: str) -> str:
        """Return the finding as a clause, without a full stop."""
        seen = "" if self.epochs is None else f", after {self.epochs:.1f} epochs of its text in this run"
        return (
            f"{domain} is probably overfitted: its held-out loss rose from {self.lowest_loss:.3f} (step "
            f"{self.lowest_step}) to {self.loss:.3f} (step {self.step}) while its weight grew from "
            f"{100 * self.lowest_weight:.1f} % to {100 * self.weight:.1f} %{seen}"
        )


def overfitted_domains(points: Sequence[LossPoint], domain_weights: Sequence[WeightPoint]) -> dict[str, Overfitting]:
    """Return the domains that were overfitted at an evaluation, each with the first such evaluation.

    A domain is overfitted at an evaluation if its held-out loss is at least RISE_NATS above its lowest at an earlier
    one, and its weight at least GROWTH times that at the time of the lowest. What is found at an evaluation stays
    found at later ones, so it follows from the history alone whether an evaluation is the first.

    Args:
        points: held-out losses, in the order of their steps.
        domain_weights: initial weights and each change of them, in the order of their steps.
    """
    steps, found, lowest = [each.step for each in domain_weights], {}, {}
    for point in points if steps else ():
        # weights that are set at the step of an evaluation follow from it
        weights = domain_weights[max(bisect_left(steps, point.step) - 1, 0)].weights
        for name, loss in point.losses.items():
            if name not in weights:  # a held-out set of no domain
                continue
            if name not in lowest or loss < lowest[name][1]:
                lowest[name] = point.step, loss, weights[name]
                continue
            lowest_step, lowest_loss, lowest_weight = lowest[name]
            rises = loss - lowest_loss >= RISE_NATS and weights[name] >= GROWTH * lowest_weight > 0
            if rises and name not in found:
                found[name] = Overfitting(
                    lowest_step=lowest_step,
                    lowest_loss=lowest_loss,
                    lowest_weight=lowest_weight,
                    step=point.step,
                    loss=loss,
                    weight=weights[name],
                )
    return found
