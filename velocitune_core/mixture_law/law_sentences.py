"""Say a plan with its law: what is recommended, and the reasons to doubt it."""

from __future__ import annotations

from velocitune_core.in_words import listed
from velocitune_core.mixture_law.law import MixtureLaw
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.plan_sentences import explain


def plan_in_words(law: MixtureLaw, plan: MixturePlan) -> list[str]:
    """Return what a plan says and how far its law carries it, a sentence each: on pages, terminals and in files alike.

    Args:
        law: that `plan` was optimised under.
    """
    return [*explain(plan), *doubts(law), *guards_in_words(law, plan)]


def doubts(law: MixtureLaw) -> list[str]:
    """Return sentences on what a law cannot say, the gravest first."""
    few, unknown = (
        [name for name in law.sets if flag in law.evidence[name].flags] for flag in ("too_few_runs", "not_identified")
    )
    found = []
    if few:
        found.append(f"Too few runs: {len(law.runs.runs)} for {len(law.domains)} domains. Differences may be chance.")
    if unknown:
        found.append(f"The law predicts no better than the mean of the runs: {listed(unknown)}.")
    if not law.resamples:
        found.append(
            "The law has no bootstrap, so nothing here says how sure it is; a bootstrap of 200 resamples would."
        )
    return [*found, *law.runs.notes]


def guards_in_words(law: MixtureLaw, plan: MixturePlan) -> list[str]:
    """Return a sentence on guards that may be broken without a trace in a law of each set's own domain."""
    guarded = sorted({limit.about for limit in plan.limits if limit.kind in {"set", "average", "forgetting"}})
    if law.name != "bimix" or not guarded:
        return []
    return [
        f"The law bimix leaves out what one domain teaches another, so the guard of {listed(guarded)} can be broken "
        "without showing in it where the text of other domains resembles it (docs/RESULTS.md, a second mixture); the "
        "law transfer includes it, and needs more runs."
    ]
