"""OLMo-core: the YAML of a SourceMixtureList, ratios of tokens."""

from __future__ import annotations

import math

from velocitune_core.export.block import Block, Files, Format, commented, quoted

MARGIN = 1.01  # of repetitions, as OLMo-core counts the tokens of its own files


def _write(block: Block) -> Files:
    lines = ["sources:"]
    for name, share in block.shares.items():
        lines += [f"  - source_name: {quoted(name)}", f"    target_ratio: {share}"]
        lines += ["    paths:", f"      - {quoted(block.paths[name])}"]
        repetitions = math.ceil(100 * MARGIN * block.epochs.get(name, 0.0)) / 100
        if repetitions > 1:
            lines.append(f"    max_repetition_ratio: {repetitions:g}")
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="olmo-core",
    trainer="OLMo-core",
    suffix=".yaml",
    unit="sequences",
    write=_write,
    use="a SourceMixtureList; its SourceMixtureDatasetConfig has requested_tokens",
    path="data/{domain}/*.npy",
)
