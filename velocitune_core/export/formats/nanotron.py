"""nanotron: data stages with folders and weights of sequences."""

from __future__ import annotations

from velocitune_core.export.block import Block, BlockStage, Files, Format, commented, quoted

FIRST = 1  # nanotron counts steps from 1


def _write(block: Block) -> Files:
    stages = block.stages or [BlockStage(0, block.steps or 0, block.shares)]
    lines = ["data_stages:"]
    for number, stage in enumerate(stages, start=1):
        lines += [f"  - name: {quoted(f'stage {number}')}", f"    start_training_step: {stage.step + FIRST}"]
        lines += ["    data:", "      dataset:", "        dataset_folder:"]
        lines += [f"          - {quoted(block.paths[name])}" for name in stage.shares]
        lines += ["        dataset_weights:"]
        lines += [f"          - {share}" for share in stage.shares.values()]
        lines += ["      num_loading_workers: 1", "      seed: 42"]
    return {"": commented(block.comment) + "\n".join(lines) + "\n"}


FORMAT = Format(
    name="nanotron",
    trainer="nanotron",
    suffix=".yaml",
    unit="sequences",
    write=_write,
    use="a part of the configuration",
    path="data/{domain}",
    stages=True,
    caution=(
        "nanotron trains on the last of the stages in its file: begin with the first alone, and add the next one when "
        "its start_training_step is reached, resuming from the checkpoint of the step before."
    ),
)
