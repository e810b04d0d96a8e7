"""ms-swift: data sets with probabilities of examples, as arguments of its commands."""

from __future__ import annotations

import shlex

from velocitune_core.export.block import Block, Files, Format


def _write(block: Block) -> Files:
    paths = " ".join(shlex.quote(block.paths[name]) for name in block.shares)
    probabilities = " ".join(block.shares.values())
    return {"": f"--dataset {paths} --interleave_prob {probabilities} --stopping_strategy all_exhausted\n"}


FORMAT = Format(
    name="ms-swift",
    trainer="ms-swift",
    suffix=".txt",
    unit="documents",
    units=("documents", "sequences"),
    write=_write,
    use="arguments of swift pt or swift sft, with --max_steps for the length of the run",
    path="data/{domain}.jsonl",
)
