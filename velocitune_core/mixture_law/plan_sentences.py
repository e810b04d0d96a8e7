"""Say a plan in a few sentences: first what any mixture could gain, then what is recommended, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from velocitune_core.in_words import amount_text, difference_text, limit_text, signed
from velocitune_core.mixture_law.mixture_plan import Gain, Interval, Limit, MixturePlan

AGAINST = {"set": "against static", "average": "against static", "forgetting": "against the initial model"}
DIGITS = 3  # of differences, nats
LEAST_GAIN = 0.00005  # nats; less is 0.0000 in a sentence


def explain(plan: MixturePlan) -> list[str]:
    """Return sentences about a plan, the most important first; differences are in nats per token, less is better."""
    found = [_most(plan.most, plan), *_gained(plan.most, plan), _recommended(plan)]
    if not plan.mixtures[plan.baseline].inside:
        found.append(
            f"The runs do not cover {plan.baseline} weights, so differences to them are extrapolated: run them too."
        )
    found += _measured_only(plan)
    if plan.indistinguishable:
        found.append(f"The law cannot distinguish the recommended weights from {_list(plan.indistinguishable)}.")
    found += [_limit(limits, plan) for limits in _together(plan.limits)]
    if any(limit.kind != "runs" for limit in plan.limits):
        free = plan.mixtures["without guards"].differences[plan.average]
        found.append(f"Without guards and bounds the best mixture is at {_nats(free)} to {plan.baseline}.")
    if plan.regret is not None and plan.regret.high is not None:
        found.append(
            f"Over {len(plan.optima)} resamples of the runs the recommended weights miss the best possible by "
            f"{amount_text(plan.regret.value, 4)} on average and by {amount_text(plan.regret.high, 4)} at most in "
            f"{_percent(plan)} of them."
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
    most = _at_most(gain)
    by_more = "in" if most <= 0 else f"by more than {max(most, 10**-DIGITS):.{DIGITS}f} nats of"
    return (
        f"No mixture that the runs cover{guarded} is predicted to be better than {gain.reference} {by_more} the "
        f"average '{plan.average}'{sure}."
    )


def _gained(gain: Gain | None, plan: MixturePlan) -> list[str]:
    """Return what the recommended weights gain of the most that any could: a small bound is no reason against them."""
    if gain is None or plan.given or gain.reference in plan.indistinguishable:
        return []
    better = plan.mixtures[gain.reference].average.value - plan.mixtures["recommended"].average.value
    if round(better, DIGITS) <= 0:
        return []
    return [
        f"The recommended weights are predicted to be {better:.{DIGITS}f} nats better than {gain.reference}, of the "
        f"{_at_most(gain):.{DIGITS}f} that are possible at most; training under them costs no more."
    ]


def _at_most(gain: Gain) -> float:
    """Return the bound of a gain, in nats."""
    return gain.gain.value if gain.gain.high is None else max(gain.gain.high, gain.gain.value)


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


def _together(limits: Sequence[Limit]) -> list[list[Limit]]:
    """Return the limits that bind; those that are one number for all are loosened, and so said, together."""
    found: dict[tuple[str, str], list[Limit]] = {}
    for limit in limits:
        if limit.binds:
            found.setdefault((limit.kind, "" if limit.for_all else limit.about), []).append(limit)
    return list(found.values())


def _limit(limits: list[Limit], plan: MixturePlan) -> str:
    limit, about = limits[0], _list([each.about for each in limits], "and")
    for_all = " for all" if limit.for_all else ""
    if limit.kind in AGAINST:
        gains = _gains(limit, f"0.01 more{for_all} would gain", f" of '{plan.average}'")
        limit_said = f"{AGAINST[limit.kind]} ({limit_text(limit.limit)} nats)"
        return f"The guard of {about} {limit_said} binds{gains}{_kept(limits)}."
    if limit.kind == "runs" and limit.about:
        gains = _gains(limit, "0.01 beyond it is predicted to gain", "; runs there would show it")
        return f"The weight of {about} lies at the edge of its range in the runs ({limit.limit:.3g}){gains}."
    if limit.kind == "runs":
        return (
            "The recommended weights lie at the edge of what the runs cover: runs beyond it may show a better mixture."
        )
    if limit.kind == "epochs":
        times = "once" if f"{limit.limit:.3g}" == "1" else f"{limit.limit:.3g} times"
        return f"{about} may be repeated {times}, which binds{_gains(limit, f'0.1 epochs more{for_all} would gain')}."
    name, step = limit.kind.replace("_", " "), "less" if limit.kind == "least_share" else "more"
    gains = _gains(limit, f"0.01 {step}{for_all} would gain")
    return f"The {name} of {about} ({limit.limit:.4g}) binds{gains}."


def _gains(limit: Limit, what: str, of: str = "") -> str:
    """Return the end of a sentence on what a looser limit gains, if that is anything."""
    return f": {what} {limit.gain:.4f}{of}" if limit.gain >= LEAST_GAIN else ""


def _kept(limits: list[Limit]) -> str:
    """Return the end of a sentence on how often guards are kept, each named if they are several."""
    shares = [
        f"{each.kept_in:.0%}" + (f" ({each.about})" if len(limits) > 1 else "")
        for each in limits
        if each.kept_in is not None
    ]
    return f"; it is kept in {_list(shares, 'and')} of the resamples" if shares else ""


def _nats(each: Interval) -> str:
    value = difference_text(each.value, DIGITS)
    if each.low is None or each.high is None:
        return value
    return f"{value} [{signed(each.low, DIGITS)}, {signed(each.high, DIGITS)}]"


def _percent(plan: MixturePlan) -> str:
    return f"{50 + 50 * plan.level:.4g} %"


def _list(names: list[str], before_last: str = "or") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {before_last} {names[-1]}"
