"""TRL from 1.8 on: a mixture of data sets with fractions of its examples, none of which is drawn twice."""

from __future__ import annotations

from velocitune_core.export.block import Block, Files, Format, commented, quoted

ONCE = 1 + 1e-9  # epochs


def _check(block: Block) -> list[str]:
    repeated = {name: epochs for name, epochs in block.epochs.items() if epochs > ONCE}
    if not repeated or block.tokens is None:
        return []
    most = int(block.tokens / max(repeated.values()))
    drawn = ", ".join(f"{name} {epochs:.3f}" for name, epochs in repeated.items())
    return [
        f"fraction: {block.tokens} tokens are more than one epoch of some domains ({drawn}), and TRL draws no example "
        f"twice; give --tokens {most} or less, or take another trainer"
    ]


def _write(block: Block) -> Files:
    lines = ["datasets:"]
    for name, share in block.shares.items():
        lines += ["  - path: json", f"    data_files: {quoted(block.paths[name])}"]
        lines += ["    split: train", f"    fraction: {share}"]
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="trl",
    trainer="TRL",
    suffix=".yaml",
    unit="documents",
    units=("documents", "sequences"),
    write=_write,
    check=_check,
    use="a part of the configuration of trl sft (1.8 or newer), with max_steps for the length of the run",
    path="data/{domain}.jsonl",
)
