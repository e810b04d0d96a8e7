"""Differences, shares and lists as text: what the sentences of the method, tables, figures and pages write alike."""

from __future__ import annotations

from collections.abc import Sequence


def signed(number: float, digits: int, *, zero: str | None = None) -> str:
    """Return a number with its sign, a true minus: '+0.012'; what rounds to zero has no sign, or is `zero`."""
    text = f"{number:+.{digits}f}"
    if not float(text):
        return text[1:] if zero is None else zero
    return text.replace("-", "−")


def difference_text(number: float, digits: int = 3) -> str:
    """Return a difference for a sentence: '−0.012'; what rounds to zero is 'less than 0.001'."""
    return signed(number, digits, zero=less_than(digits))


def amount_text(number: float, digits: int = 3) -> str:
    """Return a gain or an error for a sentence, without a plus: '0.012', '−0.012' or 'less than 0.001'."""
    return difference_text(number, digits).removeprefix("+")


def less_than(digits: int) -> str:
    """Return what is said of a number that rounds to zero: 'less than 0.001' for three digits."""
    return f"less than {10**-digits:.{digits}f}"


def significant(number: float, digits: int) -> str:
    """Return a positive number to so many significant digits, without a power of ten: 0.035, 5.2, 300, 1,200,000."""
    rounded = float(f"{number:.{digits}g}")
    return f"{rounded:,.0f}" if rounded.is_integer() else f"{rounded:g}"


def limit_text(limit: float, _position: int | None = None) -> str:
    """Return a limit that was set, or the tick of an axis, with its sign, without zeros at the end: '+0.05', '0'."""
    return "0" if abs(limit) < 1e-12 else f"{limit:+.4g}".replace("-", "−")


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage: 0.334 → '33.4 %', and '< 0.1 %' for a smaller one that is not zero."""
    smallest = 10 ** -(digits + 2)
    return f"< {smallest * 100:g} %" if 0 < share < smallest / 2 else f"{share * 100:.{digits}f} %"


def listed(names: Sequence[str], at_most: int = 5) -> str:
    """Return names joined by commas and 'and', those beyond `at_most` as a count: 'a, b and 3 more'."""
    if len(names) > at_most:
        names = [*names[:at_most], f"{len(names) - at_most} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
