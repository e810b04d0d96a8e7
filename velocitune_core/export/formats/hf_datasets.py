"""Hugging Face datasets: a module with a function that returns the mixture."""

from __future__ import annotations

from velocitune_core.export.block import Block, Files, Format, commented, quoted

_FUNCTION = '''

def mixture(seed=0, streaming=True):
    """Return the mixture; a domain that is exhausted starts again."""
    parts = [load_dataset("json", data_files=PATHS[name], split="train", streaming=streaming) for name in PROBABILITIES]
    probabilities = list(PROBABILITIES.values())
    return interleave_datasets(parts, probabilities=probabilities, seed=seed, stopping_strategy="all_exhausted")
'''


def _write(block: Block) -> Files:
    lines = ["from datasets import interleave_datasets, load_dataset", ""]
    lines += ["PATHS = {", *(f"    {quoted(name)}: {quoted(block.paths[name])}," for name in block.shares), "}"]
    lines += ["PROBABILITIES = {", *(f"    {quoted(name)}: {share}," for name, share in block.shares.items()), "}"]
    return {"": commented(block.comment) + "\n".join(lines) + "\n" + _FUNCTION}


FORMAT = Format(
    name="datasets",
    trainer="Hugging Face datasets",
    suffix=".py",
    unit="documents",
    units=("documents", "sequences"),
    write=_write,
    use="a module whose mixture() is the data set",
    path="data/{domain}.jsonl",
)
