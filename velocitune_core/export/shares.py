"""Shares of tokens as shares of what another trainer draws, and shares as decimals that sum to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from velocitune_core.export.mixture import DomainSize, ExportError, Unit
from velocitune_core.rounding import whole_units

DECIMALS = 6
SMALLEST = 1e-9  # share of the draws; a smaller one is written as 0


def drawn_shares(shares: Mapping[str, float], unit: Unit, sizes: Mapping[str, DomainSize]) -> dict[str, float]:
    """Return the share of the draws that gives each domain its share of the tokens.

    Sequences are equally long, so their shares are those of the tokens. Documents are not: a share of the tokens is
    divided by the domain's mean tokens per document, and the quotients are scaled to sum to 1.
    """
    if unit == "sequences":
        return dict(shares)
    draws = {name: share / mean_tokens(name, sizes) for name, share in shares.items()}
    total = sum(draws.values())
    return {name: each / total for name, each in draws.items()}


def token_shares(draws: Mapping[str, float], unit: Unit, sizes: Mapping[str, DomainSize]) -> dict[str, float]:
    """Return the shares of the tokens that shares of the draws give: the inverse of `drawn_shares`."""
    if unit == "sequences":
        total = sum(draws.values())
        return {name: each / total for name, each in draws.items()}
    tokens = {name: each * mean_tokens(name, sizes) for name, each in draws.items()}
    total = sum(tokens.values())
    return {name: each / total for name, each in tokens.items()}


def mean_tokens(name: str, sizes: Mapping[str, DomainSize]) -> float:
    """Return the mean tokens per document of a domain.

    Raises ExportError where the number of its documents is not known.
    """
    size = sizes.get(name)
    if size is None or not size.documents:
        raise ExportError(
            f"unit: documents of {name!r} are not counted, so that shares of tokens cannot become shares of documents; "
            "count them in a file for --manifest (docs/EXPORT.md), or give --unit sequences for rows of equal length"
        )
    return size.tokens / size.documents


def decimals_of(smallest: float | Fraction) -> int:
    """Return the decimals that leave the smallest share three significant digits; six at least."""
    return max(DECIMALS, 2 + math.ceil(-math.log10(smallest)))


def as_text(shares: Mapping[str, float]) -> dict[str, str]:
    """Return shares as decimals without an exponent that sum to exactly 1; those below `SMALLEST` are left out."""
    present = _shares({name: Fraction(share) for name, share in shares.items()})
    present = _shares({name: share for name, share in present.items() if share >= SMALLEST})
    decimals = decimals_of(min(present.values()))
    units = whole_units(present, 10**decimals)
    return {name: _decimal(unit, decimals) for name, unit in units.items()}


def _shares(weights: Mapping[str, Fraction]) -> dict[str, Fraction]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _decimal(units: int, decimals: int) -> str:
    whole, rest = divmod(units, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
