"""Levanter and marin: train_weights of sequences, apportioned in blocks, with stages at steps."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from velocitune_core.export.block import Block, Files, Format, commented, quoted

DEFAULT, MOST = 2048, 2**16 - 1  # sequences of a block
FEW = 0.01  # relative error of a domain's share from which on a larger block is taken


def block_size(block: Block) -> int | None:
    """Return the sequences of a block of the mixture; None where the batch is not known.

    A stage must begin with a block. A larger block has finer shares: Levanter rounds the sequences of each domain down,
    and gives the rest to the largest.
    """
    if not block.stages:
        sizes = [DEFAULT * 2**power for power in range(5)]
        return next((size for size in sizes if _error(block.shares, size) <= FEW), sizes[-1])
    if block.batch_sequences is None:
        return None
    common = math.gcd(*(stage.step * block.batch_sequences for stage in block.stages))
    return max(size for size in range(1, min(common, MOST) + 1) if common % size == 0)


def block_counts(shares: Mapping[str, str], size: int) -> dict[str, int]:
    """Return the sequences of each domain in a block, as Levanter counts them."""
    weights = np.array([float(share) for share in shares.values()])
    counts = (weights / weights.sum() * size).astype(np.int64)
    counts[counts.argmax()] += size - counts.sum()
    return {name: int(count) for name, count in zip(shares, counts, strict=True)}


def _error(shares: Mapping[str, str], size: int) -> float:
    counts = block_counts(shares, size)
    return max(abs(counts[name] / size / float(share) - 1) for name, share in shares.items())


def _given(block: Block, shares: Mapping[str, str]) -> dict[str, float]:
    size = block_size(block)
    if size is None:
        return {name: float(share) for name, share in shares.items()}
    return {name: count / size for name, count in block_counts(shares, size).items()}


def _check(block: Block) -> list[str]:
    size = block_size(block)
    if size is None:
        return ["batch_sequences: not known, and a stage must begin with a block of sequences; give --batch-sequences"]
    every = [stage.shares for stage in block.stages] or [block.shares]
    lost = {name for shares in every for name, count in block_counts(shares, size).items() if count == 0}
    fix = "give a smaller --max-stages, or --schedule mean" if block.stages else "leave the domain out"
    return [
        f"mixture_block_size: {size}: no sequence of a block is of {name}, whose weight is too small for it; {fix}"
        for name in sorted(lost)
    ]


def _write(block: Block) -> Files:
    lines = ["data:", "  train_weights:"]
    if block.stages:
        for stage in block.stages:
            pairs = ", ".join(f"{quoted(block.paths[name])}: {share}" for name, share in stage.shares.items())
            lines.append(f"    - [{stage.step}, {{{pairs}}}]")
    else:
        lines += [f"    {quoted(block.paths[name])}: {share}" for name, share in block.shares.items()]
    lines.append(f"  mixture_block_size: {block_size(block)}")
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="levanter",
    trainer="Levanter",
    suffix=".yaml",
    unit="sequences",
    write=_write,
    check=_check,
    given=_given,
    use="a part of the configuration; the names are those of data.components (data.configs until 2025)",
    path="{domain}",
    stages=True,
    caution="A stage begins at a step of the optimizer, so the batch must be the one that this file is for.",
)
