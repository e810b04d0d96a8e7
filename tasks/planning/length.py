"""What budgets mean for the data at hand: an epoch of all, text packed in vain, a base that repeats its text."""

from __future__ import annotations

from tasks.planning.inputs import is_base, tokens_of_base
from velocitune_core.config import Params
from velocitune_core.contracts import Manifest
from velocitune_core.style.text import tokens_text

FEW_TOKENS = 0.5  # of what is packed: below it, packing less is worth a word
MANY_EPOCHS = 4.0  # of the base's text; beyond it, repeated text teaches little (Muennighoff et al., 2023)


def length_notices(params: Params, manifest: Manifest) -> list[str]:
    """Return what follows from the budgets of the main run and of the base.

    Args:
        manifest: of packed data, or with sizes that were estimated.
    """
    packed = sum(domain.train.tokens for domain in manifest.domains.values())
    budget, notices = params.training.token_budget, []
    if budget is None:
        proxies = sum(params.proxies.fractions) * len(params.proxies.seeds)
        notices.append(
            f"training.token_budget is null: the main run takes one epoch of all text, {tokens_text(packed)} tokens, "
            f"and the proxies {proxies:.2g} times that"
        )
    elif budget < FEW_TOKENS * packed:
        notices.append(
            f"training.token_budget {tokens_text(budget)} is {budget / packed:.0%} of the {tokens_text(packed)} tokens "
            "that are packed all the same; max_tokens of the domains packs less"
        )
    if is_base(params):
        notices += _base_notices(params, tokens_of_base(params))
    return notices


def _base_notices(params: Params, tokens: int | None) -> list[str]:
    assert params.base is not None
    budget = params.base.training.token_budget
    if budget is None or not tokens:
        return []
    if (epochs := budget / tokens) <= MANY_EPOCHS:
        return []
    return [
        f"base.training.token_budget {tokens_text(budget)} is {epochs:.0f} epochs of the text of base.domains; null "
        "takes one epoch, and base.domains: null the text of all domains"
    ]
