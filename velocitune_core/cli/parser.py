"""The parser of command lines, whose messages name what a misspelt option or choice was meant to be."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NoReturn

from velocitune_core.files import path_problem
from velocitune_core.spelling import aside, did_you_mean

_CHOICE = re.compile(r"invalid choice: '?([^'\s]+)")


def path_argument(text: str) -> Path:
    """Return the path that an argument names. Raises ArgumentTypeError for one that no file or folder can have."""
    if problem := path_problem(text):
        raise argparse.ArgumentTypeError(f"{shortened(text)} {problem}")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """As argparse has it; from Python 3.14 on it has suggestions of its own, but only for choices."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse as argparse does, and keep the arguments for its messages."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, the usage and the message; it names every option that does not exist."""
        unknown = [f"{name}{aside(name, self._option_string_actions)}" for name in self._unknown_options()]
        if unknown and message.startswith("unrecognized arguments"):
            others = [each for each in message.split(": ", 1)[1].split() if not each.startswith("--")]
            message = f"unrecognized arguments: {' '.join([*unknown, *others])}"
        elif unknown:  # argparse stops at the first problem, which may follow from a misspelt option
            message = f"{message}; there is no option {', '.join(unknown)}"
        elif choice := _CHOICE.search(message):
            choices = [each for action in self._actions for each in action.choices or ()]
            message += did_you_mean(choice[1], choices)
        super().error(message)

    def _unknown_options(self) -> Iterator[str]:
        for each in takewhile(lambda argument: argument != "--", self._given):
            name = each.partition("=")[0]
            if name.startswith("--") and not any(known.startswith(name) for known in self._option_string_actions):
                yield name
