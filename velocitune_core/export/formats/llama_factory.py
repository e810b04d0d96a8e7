"""LLaMA-Factory: names of data sets with probabilities of examples."""

from __future__ import annotations

from velocitune_core.export.block import Block, Files, Format, commented, quoted


def _check(block: Block) -> list[str]:
    return [
        f"paths: {path!r} of {name}: names are separated by commas; give the data set a name without one"
        for name, path in block.paths.items()
        if "," in path or path != path.strip() or not path
    ]


def _write(block: Block) -> Files:
    names = ",".join(block.paths[name] for name in block.shares)
    lines = [f"dataset: {quoted(names)}", "mix_strategy: interleave_over"]
    lines.append(f"interleave_probs: {quoted(','.join(block.shares.values()))}")
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="llama-factory",
    trainer="LLaMA-Factory",
    suffix=".yaml",
    unit="documents",
    units=("documents", "sequences"),
    write=_write,
    check=_check,
    use="a part of the arguments, with max_steps for the length of the run; the names are those of dataset_info.json",
    path="{domain}",
)
