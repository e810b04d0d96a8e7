"""What each domain gets of a run under an exported mixture: share, tokens, epochs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from velocitune_core.export.block import Block, Format
from velocitune_core.export.mixture import Mixture
from velocitune_core.export.shares import token_shares
from velocitune_core.style.text import signed

WIDTH = 110  # of a line of comment, characters
MUCH = 0.01  # relative change of a share


@dataclass(frozen=True)
class Row:
    """One domain. Tokens and epochs are of the whole run; None where the run, or the domain's size, is not known."""

    domain: str
    weight: float  # share of the tokens that is wanted
    written: str  # share of the draws that is in the file, in the mean over its stages
    share: float  # share of the tokens that this gives
    tokens: int | None
    epochs: float | None
    trained_tokens: int | None  # that the run of the results drew


def realised_rows(mixture: Mixture, block: Block, to: Format) -> list[Row]:
    """Return a row for each domain, in the order of the mixture."""
    given = _given(block, to)
    shares = token_shares(given, block.unit, block.sizes)
    rows = []
    for name, weight in mixture.shares.items():
        share, size, trained = shares.get(name, 0.0), block.sizes.get(name), mixture.trained_tokens.get(name)
        tokens = None if block.tokens is None else share * block.tokens
        rows.append(
            Row(
                domain=name,
                weight=weight,
                written=block.shares.get(name, "0"),
                share=share,
                tokens=None if tokens is None else round(tokens),
                epochs=None if tokens is None or size is None or not size.tokens else tokens / size.tokens,
                trained_tokens=None if trained is None else round(trained),
            )
        )
    return rows


def _given(block: Block, to: Format) -> dict[str, float]:
    """Return the shares of the draws over the whole run, as the trainer rounds them."""
    if not block.stages:
        return dict(to.given(block, block.shares))
    steps = sum(stage.steps for stage in block.stages)
    mean = dict.fromkeys(block.paths, 0.0)
    for stage in block.stages:
        for name, share in to.given(block, stage.shares).items():
            mean[name] += share * stage.steps / steps
    return mean


def rounding_notes(rows: Sequence[Row]) -> list[str]:
    """Return a sentence on the domains whose share of the tokens the trainer's rounding changes by over 1 %, if any."""
    moved = {row.domain: row.share / row.weight - 1 for row in rows if row.weight > 0 and row.share > 0}
    far = [f"{name} {signed(100 * change, 1)} %" for name, change in moved.items() if abs(change) > MUCH]
    return [f"The trainer's rounding changes what domains get of the tokens: {', '.join(far)}."] if far else []


def header(mixture: Mixture, block: Block, to: Format, rows: Sequence[Row], notes: Sequence[str]) -> list[str]:
    """Return the lines that stand above the block, for formats that can hold comments."""
    draws = {"sequences": "sequences of equal length", "documents": "documents"}[block.unit]
    schedule = f" {len(block.stages)} stages." if block.stages else ""
    sentences = [f"{mixture.source}.", f"For {to.trainer}, which draws {draws}.{schedule}", *notes]
    return [*(line for each in sentences for line in textwrap.wrap(each, WIDTH)), "", *table(rows, block)]


def table(rows: Sequence[Row], block: Block) -> list[str]:
    """Return the rows as aligned lines of text, with a heading."""
    run = "a run" if block.tokens is None else f"a run of {block.tokens} tokens"
    cells = [["domain", "weight", "written", "tokens", "epochs"]]
    for row in rows:
        tokens = "-" if row.tokens is None else str(row.tokens)
        epochs = "-" if row.epochs is None else f"{row.epochs:.3f}"
        cells.append([row.domain, f"{row.weight:.6f}", row.written, tokens, epochs])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return [f"What {run} then gets of each domain (weight: share of the tokens that is wanted):", *lines]


def as_json(mixture: Mixture, block: Block, to: Format, rows: Sequence[Row], notes: Sequence[str]) -> dict[str, Any]:
    """Return the rows and what they are of, as the file beside an export holds them."""
    return {
        "source": mixture.source,
        "for": to.trainer,
        "unit": to.shares_of or block.unit,
        "stages": len(block.stages) or 1,
        "tokens": block.tokens,
        "notes": list(notes),
        "domains": {row.domain: {key: value for key, value in asdict(row).items() if key != "domain"} for row in rows},
    }
