"""Plain JSON: shares of tokens, for a trainer that is not in the list."""

from __future__ import annotations

from collections.abc import Mapping

from velocitune_core.export.block import Block, Files, Format, quoted

SHARES_OF = "tokens"  # which are those of sequences of equal length


def _write(block: Block) -> Files:
    lines = ["{", f'  "source": {quoted(block.source)},', f'  "unit": {quoted(SHARES_OF)},']
    known = {"steps": block.steps, "tokens": block.tokens}
    lines += [f'  "{name}": {value},' for name, value in known.items() if value is not None]
    if block.stages:
        stages = [f'    {{"step": {each.step}, "shares": {_object(each.shares)}}}' for each in block.stages]
        lines += ['  "stages": [', ",\n".join(stages), "  ],"]
    return {"": "\n".join([*lines, f'  "shares": {_object(block.shares)}', "}"]) + "\n"}


def _object(shares: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{quoted(name)}: {share}" for name, share in shares.items()) + "}"


FORMAT = Format(
    name="json",
    trainer="any trainer",
    suffix=".json",
    unit="sequences",
    shares_of=SHARES_OF,
    write=_write,
    use="shares of tokens by domain; steps count from 0",
    path="{domain}",
    stages=True,
)
