"""What static training of the model reaches on every held-out set: where the predicted losses of a plan begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velocitune_core.contracts import LossPoint, SwarmRun, Targets
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.share_bounds import by_name


def static_levels(
    fitted: MixtureLaw,
    runs: Sequence[SwarmRun],
    initial_weights: Mapping[str, float],
    targets: Targets,
    *,
    sibling: bool,
) -> dict[str, float]:
    """Return the loss of static training by held-out set, nats per token.

    Of a set with a target, the target. Of any other, what the model reached in its longest static run: the largest
    proxy, or the swarm if that trains the model itself. Failing both, what the sibling reached; see `level_problems`.

    Args:
        fitted: law of the largest runs of the swarm.
        runs: of the swarm.
        targets: what static training reaches.
        sibling: whether the swarm trains a sibling of the model.
    """
    known = {name: float(loss) for name, loss in fitted.predict(initial_weights).items()}
    proxy = _longest_proxy(runs, targets, sibling)
    return known | ({} if proxy is None else proxy.losses) | targets.losses()


def level_problems(objective: Objective, targets: Targets, *, sibling: bool) -> list[str]:
    """Return a line for each guard of forgetting that cannot be judged: no static run of the model measured the set."""
    if not sibling or objective.forgetting is None:
        return []
    measured = {} if targets.measured is None else targets.measured.losses
    return [
        f"objective.forgetting of {name}: no static run of the model measured this set, and the swarm trains a sibling "
        "(mixture.swarm.model), whose losses are others; run the stages `proxies` and `targets` again, which measure "
        f"it, set mixture.swarm.model to null, or leave {name} out of forgetting"
        for name in by_name(objective.forgetting, objective.retained)
        if name not in {*targets.domains, *measured}
    ]


def levels_in_words(sets: Sequence[str], runs: Sequence[SwarmRun], targets: Targets, *, sibling: bool) -> list[str]:
    """Return a sentence on those of the sets without a target: what their predicted losses rest on."""
    names = [name for name in sets if name not in targets.domains]
    if not names:
        return []
    proxy = _longest_proxy(runs, targets, sibling)
    if proxy is not None:
        level = f"the level of the model's largest static proxy ({proxy.tokens:,} tokens)"
    else:
        level = "the level of the sibling, which is not the model's" if sibling else "the level of the swarm's runs"
    have = "have" if len(names) > 1 else "has"
    return [
        f"{', '.join(names)} {have} no target: predicted losses and forgetting are at {level}, and only differences to "
        "static training are predictions for the whole run."
    ]


def _longest_proxy(runs: Sequence[SwarmRun], targets: Targets, sibling: bool) -> LossPoint | None:
    """Return what the largest proxy measured; None if no proxy is known, or runs of the model itself are longer."""
    longest = max((run.tokens for run in runs if run.use == "law"), default=0)
    return None if targets.measured is None or (not sibling and targets.measured.tokens < longest) else targets.measured
