"""Say a plan in a few sentences: first what any mixture could gain, then what is recommended, and what it costs."""

from __future__ import annotations

from velocitune_core.mixture_law.mixture_plan import Gain, Interval, Limit, MixturePlan

FIELDS = {"set": "against static", "average": "against static", "forgetting": "against the initial model"}


def explain(plan: MixturePlan) -> list[str]:
    """Return sentences about a plan, the most important first; differences are in nats per token, less is better."""
    found = [_most(plan.most, plan), *_gained(plan.most, plan), _recommended(plan)]
    if not plan.mixtures[plan.baseline].inside:
        found.append(
            f"The runs do not cover {plan.baseline} weights, so differences to them are extrapolated: run them too."
        )
    found += _measured_only(plan)
    if plan.indistinguishable:
        found.append(f"The law cannot tell the recommended weights from {_list(plan.indistinguishable)}.")
    found += [_limit(limit, plan) for limit in plan.limits if limit.binds]
    if any(limit.kind != "runs" for limit in plan.limits):
        free = plan.mixtures["without guards"].differences[plan.average]
        found.append(f"Without guards and bounds the best mixture is at {_nats(free)} to {plan.baseline}.")
    if plan.regret is not None and plan.regret.high is not None:
        found.append(
            f"Over {len(plan.optima)} resamples of the runs the recommended weights miss the best possible by "
            f"{plan.regret.value:.4f} on average and by {plan.regret.high:.4f} at most in {_percent(plan)} of them."
        )
    if plan.infeasible_resamples:
        of = f"{plan.infeasible_resamples} of {plan.infeasible_resamples + len(plan.optima)}"
        found.append(f"In {of} resamples no mixture keeps all guards.")
    return [*found, *plan.notes]


def _most(gain: Gain | None, plan: MixturePlan) -> str:
    guards = any(limit.kind != "runs" for limit in plan.limits)
    if gain is None:
        kept = " that keeps the guards" if guards else ""
        return f"The runs cover no reference mixture{kept}, so no cheap mixture stands beside the recommended one."
    guarded = " and that keeps the guards" if guards else ""
    sure = "" if gain.gain.high is None else f" ({_percent(plan)} of the resamples)"
    return (
        f"No mixture that the runs cover{guarded} is predicted to be better than {gain.reference} by more than "
        f"{_at_most(gain):.3f} nats of the average '{plan.average}'{sure}."
    )


def _gained(gain: Gain | None, plan: MixturePlan) -> list[str]:
    """Return what the recommended weights gain of the most that any could: a small bound is no reason against them."""
    if gain is None or plan.given or gain.reference in plan.indistinguishable:
        return []
    better = plan.mixtures[gain.reference].average.value - plan.mixtures["recommended"].average.value
    if round(better, 3) <= 0:
        return []
    return [
        f"The recommended weights are predicted to be {better:.3f} nats better than {gain.reference}, of the "
        f"{_at_most(gain):.3f} that are possible at most; training under them costs no more."
    ]


def _at_most(gain: Gain) -> float:
    """Return the bound of a gain, in nats to three decimals."""
    value = gain.gain.value if gain.gain.high is None else max(gain.gain.high, gain.gain.value)
    return round(value, 3) + 0.0  # no minus zero


def _recommended(plan: MixturePlan) -> str:
    recommended = plan.mixtures["recommended"]
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in plan.weights.items())
    differences = ", ".join(f"{name} {_nats(each)}" for name, each in recommended.differences.items())
    rule = f" These are {plan.rule}." if plan.given else ""
    return f"Recommended: {weights}. Predicted differences to {plan.baseline}: {differences}.{rule}"


def _measured_only(plan: MixturePlan) -> list[str]:
    """Return a sentence on the sets that no domain is named after, if there are any."""
    found = plan.mixtures["recommended"].set_differences
    named = [f"{name} {_nats(each)}" for name, each in found.items() if name not in plan.weights]
    if not named:
        return []
    return [f"Only measured, without training text: {', '.join(named)} to {plan.baseline}."]


def _limit(limit: Limit, plan: MixturePlan) -> str:
    more = "more for all" if limit.for_all else "more"
    if limit.kind in FIELDS:
        kept = "" if limit.kept_in is None else f"; it is kept in {limit.kept_in:.0%} of the resamples"
        return (
            f"The guard of {limit.about} {FIELDS[limit.kind]} ({limit.limit:+.4g} nats) binds: 0.01 {more} would gain "
            f"{limit.gain:.4f} of '{plan.average}'{kept}."
        )
    if limit.kind == "runs" and limit.about:
        return (
            f"The weight of {limit.about} lies at the edge of its range in the runs ({limit.limit:.3g}): 0.01 beyond "
            f"it is predicted to gain {limit.gain:.4f}; runs there would show it."
        )
    if limit.kind == "runs":
        return (
            "The recommended weights lie at the edge of what the runs cover: runs beyond it may show a better mixture."
        )
    if limit.kind == "epochs":
        repeated = f"{limit.about} may be repeated {limit.limit:.3g} times, which binds"
        return f"{repeated}: 0.1 epochs {more} would gain {limit.gain:.4f}."
    name = limit.kind.replace("_", " ")
    gains = f"0.01 {'less' if limit.kind == 'least_share' else 'more'} would gain {limit.gain:.4f}"
    return f"The {name} of {limit.about} ({limit.limit:.4g}) binds: {gains}."


def _nats(each: Interval) -> str:
    if each.low is None or each.high is None:
        return f"{each.value:+.3f}"
    return f"{each.value:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"


def _percent(plan: MixturePlan) -> str:
    return f"{50 + 50 * plan.level:.4g} %"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
