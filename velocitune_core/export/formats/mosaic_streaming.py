"""MosaicML Streaming, LLM Foundry and Composer: streams with proportions of samples."""

from __future__ import annotations

from velocitune_core.export.block import Block, Files, Format, commented, quoted


def _write(block: Block) -> Files:
    lines = ["streams:"]
    for name, share in block.shares.items():
        lines += [f"  {quoted(name)}:", f"    local: {quoted(block.paths[name])}", f"    proportion: {share}"]
    if block.draws is not None:
        lines.append(f"epoch_size: {block.draws}")
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="streaming",
    trainer="MosaicML Streaming",
    suffix=".yaml",
    unit="sequences",
    units=("sequences", "documents"),
    write=_write,
    use="arguments of Stream and StreamingDataset, as LLM Foundry's train_loader.dataset has them",
    path="data/{domain}",
)
