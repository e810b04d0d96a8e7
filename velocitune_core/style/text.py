"""Numbers and lists as text, the same in tables, figures, pages and on the terminal."""

from __future__ import annotations

from velocitune_core.in_words import amount_text, difference_text, limit_text, listed, percent, signed, significant

__all__ = [
    "amount_text",
    "counted",
    "difference_text",
    "duration",
    "limit_text",
    "listed",
    "percent",
    "signed",
    "significant",
    "tick_text",
    "tokens_text",
]


def tokens_text(tokens: float, digits: int = 3) -> str:
    """Return a token count with a unit, to `digits` significant digits: 1500000 → '1.5 M'."""
    return _scaled(tokens, digits)


def tick_text(tokens: float, _position: int | None = None) -> str:
    """Return a token count for the tick of an axis, to six significant digits."""
    return _scaled(tokens, 6)


def counted(number: int, noun: str) -> str:
    """Return a number of things in words: 1 and 'seed' → '1 seed', 2000 and 'strategy' → '2,000 strategies'."""
    if number != 1:
        hissing, becomes_ies = noun.endswith(("s", "x", "ch")), noun.endswith("y") and noun[-2:-1] not in "aeiou"
        noun = f"{noun[:-1]}ies" if becomes_ies else f"{noun}es" if hissing else f"{noun}s"
    return f"{number:,} {noun}"


def duration(seconds: float, *, rough: bool = False) -> str:
    """Return a time as people say it: '48 s', '5 min 50 s', '3 h 07 min', '2 d 4 h'.

    Args:
        rough: in one unit, as an estimate is said: '48 s', '5.8 min', '3.1 h', '2.2 days'.
    """
    if rough:
        return _roughly(seconds)
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _roughly(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _scaled(value: float, digits: int) -> str:
    for power, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= power * (1 - 0.5 * 10**-digits):
            return f"{float(f'{value / power:.{digits}g}'):g}{unit}"
    return f"{float(f'{value:.{digits}g}'):g}"
