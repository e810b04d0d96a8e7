"""Laws of held-out losses over domain weights, and the best mixture under them. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velocitune_core import lazy_names

if TYPE_CHECKING:
    from velocitune_core.mixture_law.budget import at_full_budget, effect_size
    from velocitune_core.mixture_law.evidence import Parameter, SetEvidence
    from velocitune_core.mixture_law.law import MixtureLaw, fit_mixture_law
    from velocitune_core.mixture_law.mixture_plan import MixturePlan
    from velocitune_core.mixture_law.objective import Objective, ObjectiveError
    from velocitune_core.mixture_law.optimise import optimise_mixture
    from velocitune_core.mixture_law.plan_sentences import explain
    from velocitune_core.mixture_law.rounds import next_round
    from velocitune_core.mixture_law.support import Support
    from velocitune_core.mixture_law.swarm_design import design_swarm
    from velocitune_core.mixture_law.table import MixtureLawError, RunTable, enough_runs
    from velocitune_core.mixture_law.trade_off_curve import trade_off
    from velocitune_core.mixture_law.what_if import predict_mixture

__all__ = [
    "MixtureLaw",
    "MixtureLawError",
    "MixturePlan",
    "Objective",
    "ObjectiveError",
    "Parameter",
    "RunTable",
    "SetEvidence",
    "Support",
    "at_full_budget",
    "design_swarm",
    "effect_size",
    "enough_runs",
    "explain",
    "fit_mixture_law",
    "next_round",
    "optimise_mixture",
    "predict_mixture",
    "trade_off",
]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MixtureLaw": "law",
        "MixtureLawError": "table",
        "MixturePlan": "mixture_plan",
        "Objective": "objective",
        "ObjectiveError": "objective",
        "Parameter": "evidence",
        "RunTable": "table",
        "SetEvidence": "evidence",
        "Support": "support",
        "at_full_budget": "budget",
        "design_swarm": "swarm_design",
        "effect_size": "budget",
        "enough_runs": "table",
        "explain": "plan_sentences",
        "fit_mixture_law": "law",
        "next_round": "rounds",
        "optimise_mixture": "optimise",
        "predict_mixture": "what_if",
        "trade_off": "trade_off_curve",
    },
)
