"""Megatron-LM, Megatron Bridge and NeMo: weights and prefixes of fixed-length samples, a file of them per phase."""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.export.block import Block, Files, Format


def _check(block: Block) -> list[str]:
    return [
        f"paths: {path!r} of {name}: the file is split at white space; give a prefix without any"
        for name, path in block.paths.items()
        if not path or len(path.split()) != 1
    ]


def _write(block: Block) -> Files:
    """A weight of 0 is refused by Megatron-LM, so a domain without draws is left out (as it is of all blocks)."""
    if not block.stages:
        return {"": _pairs(block, block.shares)}
    files = {f"-phase-{number}": _pairs(block, stage.shares) for number, stage in enumerate(block.stages, start=1)}
    starts = ",".join(str(stage.step) for stage in block.stages[1:])
    return files | {"-phases": f"--phase-transition-iterations {starts}\n"}


def _pairs(block: Block, shares: Mapping[str, str]) -> str:
    return " ".join(f"{share} {block.paths[name]}" for name, share in shares.items()) + "\n"


FORMAT = Format(
    name="megatron",
    trainer="Megatron-LM",
    suffix=".txt",
    unit="sequences",
    write=_write,
    check=_check,
    use="the file of --data-args-path, or what follows --data-path",
    path="data/{domain}_text_document",
    stages=True,
    caution=(
        "Megatron-LM stops at each transition: start it again with the same arguments and, as --data-args-path, the "
        "file of the next phase. It needs --train-samples and one global batch size. Each phase draws from the start "
        "of its data again."
    ),
)
