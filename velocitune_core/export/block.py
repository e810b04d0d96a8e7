"""What a format writes: shares as text with the places of their data, and the run that they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from velocitune_core.export.mixture import DomainSize, ExportError, Unit

YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}


@dataclass(frozen=True)
class BlockStage:
    """One stage of a schedule, as another trainer runs it."""

    step: int  # its first step, counted from 0
    steps: int  # that it lasts
    shares: Mapping[str, str]  # of the draws, by domain; a domain that is not drawn is not in it


@dataclass(frozen=True)
class Block:
    """A mixture in the units of another trainer. Shares are decimals as text and sum to 1."""

    shares: Mapping[str, str]  # of the draws, by domain, in the mean over the run
    paths: Mapping[str, str]  # where the other trainer's data lies
    unit: Unit = "sequences"
    comment: Sequence[str] = ()  # lines, for formats that can hold them
    stages: Sequence[BlockStage] = ()  # none: constant
    steps: int | None = None  # of the other run
    tokens: int | None = None  # of the other run
    draws: int | None = None  # that its tokens are
    batch_sequences: int | None = None
    epochs: Mapping[str, float] = field(default_factory=dict)  # by domain, over the other run; may be empty
    sizes: Mapping[str, DomainSize] = field(default_factory=dict)
    source: str = ""


Files = dict[str, str]  # by what is added to the name of the file before its suffix ("" for the file itself): the text


@dataclass(frozen=True)
class Format:
    """How one trainer takes a mixture."""

    name: str  # as `--to` takes it
    trainer: str
    suffix: str  # of its file
    unit: Unit  # that it draws by default
    write: Callable[[Block], Files]
    use: str  # what to do with the file
    path: str  # default place of a domain's data, with {domain}
    units: tuple[Unit, ...] = ("sequences",)
    shares_of: str = ""  # what its file says that shares are of; "": of the draws
    stages: bool = False  # whether its weights can change over a run
    caution: str = ""  # what a schedule of stages needs there
    check: Callable[[Block], Sequence[str]] = lambda block: ()  # problems, as "field: value: fix"
    # Shares of the draws that the trainer gives for the shares of a block, where they differ.
    given: Callable[[Block, Mapping[str, str]], Mapping[str, float]] = lambda block, shares: {
        name: float(share) for name, share in shares.items()
    }

    def files(self, block: Block) -> Files:
        """Return the texts of the files. Raises ExportError with all problems of a block that it cannot express."""
        problems = [f"--to {self.name}: {problem}" for problem in self.check(block)]
        if problems:
            raise ExportError("\n".join(problems))
        return self.write(block)


def commented(comment: Sequence[str]) -> str:
    """Return lines of comment, as YAML and shells read them."""
    return "".join(f"# {' '.join(line.splitlines())}".rstrip() + "\n" for line in comment)


def quoted(text: str) -> str:
    """Return a string as JSON has it, which YAML and Python read as the same string."""
    return json.dumps(text, ensure_ascii=False)


def params_yaml(shares: Mapping[str, str]) -> str:
    """Return shares of tokens as parts of params.yaml under which a run holds them from its first step.

    The strategy is one of the parts: most others train under weights of their own, for which these are but a start.
    """
    weights = "".join(f"    {_key(name)}: {share}\n" for name, share in shares.items())
    return f"mixture:\n  initial_domain_weights:\n{weights}strategy: {{name: static, options: {{}}, search: null}}\n"


def _key(name: str) -> str:
    """Return a key of YAML, quoted where it would be read as something else."""
    plain = re.fullmatch(r"[A-Za-z_][\w-]*", name) and name.lower() not in YAML_WORDS
    return name if plain else "'" + name.replace("'", "''") + "'"
