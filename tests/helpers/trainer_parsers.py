"""A file for another trainer, read by that trainer: `python trainer_parsers.py TRAINER FILE FOLDER DRAWS`.

It runs in the trainer's environment, prints what was read as JSON in its last line, and imports nothing of the project.
Data is in FOLDER: for each domain its rows, as the trainer stores them.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml


def megatron(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    from megatron.core.datasets.blended_megatron_dataset_builder import _get_size_per_split_per_dataset
    from megatron.core.datasets.blended_megatron_dataset_config import BlendedMegatronDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list, normalize

    blend = get_blend_from_list(file.read_text().split())
    config = BlendedMegatronDatasetConfig(random_seed=1, sequence_length=256, blend=blend, split="1,0,0")
    prefixes, weights = config.blend
    sizes = _get_size_per_split_per_dataset(normalize(weights), [draws, 0, 0])
    return {
        "shares": dict(zip(prefixes, weights, strict=True)),
        "drawn": {p: size[0] for p, size in zip(prefixes, sizes, strict=True)},
    }


def olmo_core(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    """Build the mixture of its token files: 2 bytes a token."""
    import numpy as np
    from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList

    sources = SourceMixtureList.from_yaml(str(file))
    sources.validate()
    for source in sources.sources:
        source.validate()
    config = SourceMixtureDatasetConfig(
        source_list=sources, requested_tokens=draws, global_batch_size=16 * 256, render_tables=False, quiet=True
    )
    built = config.build(npdtype=np.uint16, sequence_length=256)
    drawn = {each.name: sum(path.tokens for path in each.path_tokens) for each in built.sources}
    return {"shares": {each.source_name: each.target_ratio for each in sources.sources}, "drawn": drawn}


def levanter(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    """Draw batches of 16 from data sets of one row each, which holds the name of its domain."""
    import asyncio
    from importlib.util import find_spec
    from types import ModuleType

    package, found = ModuleType("levanter"), find_spec("levanter")  # without what it imports of training at its start
    package.__path__ = list(found.submodule_search_locations or ()) if found else []
    sys.modules["levanter"] = package
    import draccus
    from levanter.data.dataset import ListAsyncDataset
    from levanter.data.mixture import MixtureDataset, rescale_mixture_schedule_for_batch_schedule
    from levanter.data.text import LMMixtureDatasetConfig
    from levanter.schedule import BatchSchedule

    names = [path.stem for path in folder.glob("*.jsonl")]
    sources = {"configs": {name: {"train_urls": [name]} for name in names}}
    config = draccus.decode(LMMixtureDatasetConfig, yaml.safe_load(file.read_text())["data"] | sources)
    weights = config.train_weights
    if isinstance(weights, list):
        weights = rescale_mixture_schedule_for_batch_schedule(weights, BatchSchedule(16))
    rows = {name: ListAsyncDataset([name], is_complete=True) for name in names}
    mixture = MixtureDataset(rows, weights, config.mixture_block_size, key=1)

    async def drawn() -> Counter[str]:
        counts: Counter[str] = Counter()
        for start in range(0, draws, mixture.block_size):  # it keeps few blocks
            counts.update(await mixture.get_batch(range(start, min(draws, start + mixture.block_size))))
        return counts

    stages = weights if isinstance(weights, list) else [(0, weights)]
    return {"shares": stages[0][1], "stages": stages, "drawn": dict(asyncio.run(drawn()))}


def llama_factory(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    from llamafactory.data.data_utils import merge_dataset
    from llamafactory.hparams.data_args import DataArguments
    from transformers import HfArgumentParser

    (arguments,) = HfArgumentParser((DataArguments,)).parse_yaml_file(str(file))
    parts = [_rows(folder / f"{name}.jsonl") for name in arguments.dataset]
    merged = merge_dataset(parts, arguments, seed=1)
    return {"shares": dict(zip(arguments.dataset, arguments.interleave_probs, strict=True)), **_counted(merged, draws)}


def ms_swift(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    from swift.arguments.base_args.data_args import DataArguments
    from swift.dataset.loader import DatasetLoader
    from transformers import HfArgumentParser

    (arguments,) = HfArgumentParser((DataArguments,)).parse_args_into_dataclasses(shlex.split(file.read_text()))
    parts = [_rows(Path(path)) for path in arguments.dataset]
    merged = DatasetLoader.interleave_datasets(
        parts, arguments.interleave_prob, seed=1, stopping_strategy=arguments.stopping_strategy
    )
    names = [Path(path).stem for path in arguments.dataset]
    return {"shares": dict(zip(names, arguments.interleave_prob, strict=True)), **_counted(merged, draws)}


def streaming(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    from streaming import MDSWriter, Stream, StreamingDataset

    read = yaml.safe_load(file.read_text())
    for name, stream in read["streams"].items():
        with MDSWriter(out=stream["local"], columns={"domain": "str", "tokens": "int"}) as writer:
            for line in (folder / f"{name}.jsonl").open():
                writer.write(json.loads(line))
    streams = [Stream(**stream) for stream in read["streams"].values()]
    data = StreamingDataset(streams=streams, epoch_size=draws, shuffle=True, batch_size=16, num_canonical_nodes=1)
    rows = Counter(row["domain"] for row in data)
    shares = {name: stream["proportion"] for name, stream in read["streams"].items()}
    return {"shares": shares, "drawn": dict(rows), "epoch_size": read["epoch_size"]}


def trl(file: Path, folder: Path, draws: int) -> dict[str, Any]:
    from trl import DatasetMixtureConfig, TrlParser, get_dataset

    (config,) = TrlParser((DatasetMixtureConfig,)).parse_args_and_config(["--config", str(file)])
    shares = {Path(each.data_files).stem: each.fraction for each in config.datasets}
    return {"shares": shares, **_counted(get_dataset(config)["train"], None)}


def _rows(path: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), split="train")


def _counted(merged: Any, draws: int | None) -> dict[str, Any]:
    """Count the rows by domain, and their tokens."""
    table = merged[: len(merged) if draws is None else draws]
    tokens: Counter[str] = Counter()
    for domain, count in zip(table["domain"], table["tokens"], strict=True):
        tokens[domain] += count
    return {"drawn": dict(Counter(table["domain"])), "tokens": dict(tokens)}


if __name__ == "__main__":
    trainer, file, folder, draws = sys.argv[1:]
    read = globals()[trainer.replace("-", "_")](Path(file), Path(folder), int(draws))
    sys.stdout.write(f"\n{json.dumps(read)}\n")
