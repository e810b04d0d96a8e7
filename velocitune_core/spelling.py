"""Find which known name a misspelt one stands for, and say so in a message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, known: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like another one; None if none is like it.

    Capitals, blanks, `-` for `_` and the dashes of an option make no difference.
    """
    names = {_plain(each): str(each) for each in known}
    found = get_close_matches(_plain(name), names, n=1, cutoff=cutoff)
    return names[found[0]] if found else None


def did_you_mean(name: object, known: Iterable[object], *, within: str = "") -> str:
    """Return `; did you mean X?` to append to a message on an unknown name; "" if no known name is like it.

    Args:
        within: dotted key of the section that the names are keys of, so that the message has the whole key to copy.
    """
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {f'{within}.' if within else ''}{found}?"


def aside(name: object, known: Iterable[object]) -> str:
    """Return ` (did you mean X?)` to stand behind an unknown name; "" if no known name is like it."""
    found = nearest(name, known)
    return "" if found is None else f" (did you mean {found}?)"


def with_nearest(names: Iterable[object], known: Iterable[object]) -> str:
    """Return unknown names joined by commas, each with the known name that is most like it, if there is one."""
    known = list(known)
    return ", ".join(f"{name}{aside(name, known)}" for name in names)


def _plain(name: object) -> str:
    return str(name).strip().lstrip("-").lower().replace("-", "_").replace(" ", "_")
