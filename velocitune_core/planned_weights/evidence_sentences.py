"""Say in sentences which runs a plan comes from, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

from velocitune_core.contracts import SwarmRound, SwarmRun, Worth
from velocitune_core.in_words import amount_text, listed, significant
from velocitune_core.mixture_law.budget import EffectSize


def earlier_in_words(runs: Sequence[SwarmRun]) -> list[str]:
    """Return sentences on the runs that were made before a domain was added."""
    earlier = [run for run in runs if run.use == "earlier"]
    if not earlier:
        return []
    sets = sorted({name for run in runs for name in run.losses})
    added = sorted({name for run in earlier for name, weight in run.domain_weights.items() if weight == 0})
    found = [
        f"Finished runs of earlier settings ({len(earlier)}) count as runs without {listed(added)}, at no cost; the "
        "mixtures that an optimum may be are those that the present runs cover."
    ]
    if alone := [name for name in sets if not any(name in run.losses for run in earlier)]:
        found.append(
            f"They did not measure {listed(alone)}: what is predicted there comes from the present runs alone."
        )
    return found


def missing_in_words(missing_runs: Sequence[str]) -> list[str]:
    """Return a sentence on the runs that failed."""
    if not missing_runs:
        return []
    return [
        f"The plan is made without {listed(missing_runs)}, which failed after all retries (missing_runs): the stage, "
        "run again, tries them again, and the weights may change."
    ]


def sibling_in_words(effect: EffectSize | None) -> str:
    """Return a sentence on how differences of a sibling's swarm carry over to the model."""
    if effect is None:
        return (
            "The swarm trained a smaller sibling of the model: that the model's differences are as large as the "
            "sibling's is assumed, and no interval contains it; runs of the model itself measure it "
            "(mixture.swarm.model_runs: 6)."
        )
    carried = f"{effect.value:.2f} times as large as those of its sibling"
    if effect.error is None:
        return (
            f"By {effect.runs} runs the model's differences are {carried}, and predictions are multiplied by that; "
            "three runs and more would also say how sure it is."
        )
    return (
        f"By {effect.runs} runs the model's differences are {carried}, with a standard error of {effect.error:.2f}; "
        "predictions are multiplied by that, and intervals contain the error."
    )


def rounds_in_words(rounds: Sequence[SwarmRound]) -> list[str]:
    """Return a sentence on the rounds of a swarm, and why it ended."""
    if not rounds:
        return []
    last, counts = rounds[-1], [str(each.runs) for each in rounds]
    after = counts[0] if len(counts) == 1 else f"{', '.join(counts[:-1])} and {counts[-1]}"
    regret = (
        "no mixture keeps the guards in any resample"
        if last.regret is None
        else f"a regret of {amount_text(last.regret, 4)}"
    )
    if last.settled:
        return [f"The swarm was judged after {after} runs and ended with {regret}, at most {last.tolerance:.4g}."]
    return [
        f"The swarm was judged after {after} runs and ended because they are all that mixture.swarm.runs allows: "
        f"{regret}, where {last.tolerance:.4g} was asked for."
    ]


def worth_in_words(worth: Worth, runs: int) -> list[str]:
    """Return sentences on the price of a plan, and on what static training would gain for it."""
    found = [f"The {runs} runs took {worth.share:.3g} times the operations of the main run."]
    if worth.static_gain is not None:
        found.append(
            f"Static training continued for them would gain {amount_text(worth.static_gain)} nats by the laws of the "
            f"targets, the plan is predicted to gain {amount_text(worth.gain)}."
        )
    elif worth.without_law:
        found.append(
            "What static training continued for them would gain is not known, nor from what size of run the plan pays: "
            f"the average contains {listed(worth.without_law)}, of which the targets have no law over tokens."
        )
    if worth.pays_from is not None:
        found.append(
            "If that gain is the same at every size, the plan pays for a main run from "
            f"{significant(worth.pays_from, 2)} times the operations of these runs on."
        )
    return found
