"""One file per trainer: how it takes a mixture."""

from velocitune_core.export.block import Format
from velocitune_core.export.formats import (
    hf_datasets,
    levanter,
    llama_factory,
    megatron,
    mosaic_streaming,
    ms_swift,
    nanotron,
    olmo_core,
    plain_json,
    trl_mixture,
)

_EVERY = (
    megatron,
    olmo_core,
    nanotron,
    levanter,
    llama_factory,
    ms_swift,
    hf_datasets,
    mosaic_streaming,
    trl_mixture,
    plain_json,
)
FORMATS: dict[str, Format] = {each.FORMAT.name: each.FORMAT for each in _EVERY}  # by what `--to` takes

__all__ = ["FORMATS"]
