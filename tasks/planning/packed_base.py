"""What of the embedded base is there: its packed text, and which of its runs are finished."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.runs.jobs import base_domains, base_job
from tasks.runs.price import shape_of, shape_of_folder
from tasks.runs.run_folder import finished_result
from tasks.stages.base import PACKED, UNTRAINED, UNTRAINED_SIBLING
from velocitune_core.config import Params, Shape
from velocitune_core.contracts import ContractError, DomainManifest
from velocitune_core.data.borders import document_borders
from velocitune_core.data.packing.domain import FinishedPacking, packing_key
from velocitune_core.data.tokenize import Tokenizer
from velocitune_core.model.build import llama_config
from velocitune_core.model.io import UNTRAINED as SEED
from velocitune_core.model.tokenizer import load_tokenizer


def packed_base(params: Params) -> dict[str, DomainManifest] | None:
    """Return the packed domains of the base as they were packed last; None if they are not all there."""
    found = _records(params)
    return None if found is None else {name: each.domain for name, each in found.items()}


def finished_of_base(params: Params) -> int:
    """Return how many runs of the base, its own and its sibling's, are finished under these settings."""
    assert params.base is not None
    records = _records(params)
    if records is None:
        return 0
    tokenizer = load_tokenizer(str(UNTRAINED))
    if any(record.key != _key(params, name, tokenizer, record) for name, record in records.items()):
        return 0
    domains = {name: record.domain for name, record in records.items()}
    start = document_borders(tokenizer, params.data).attention_start
    wanted: list[tuple[str, Path, Shape | None]] = [
        ("base", UNTRAINED, params.base),
        ("sibling", UNTRAINED_SIBLING, params.base.sibling),
    ]
    jobs = [
        base_job(params, folder, domains, PACKED, document_start=start, name=name)
        for name, folder, shape in wanted
        if shape is not None and _is_untrained(params, folder, shape)
    ]
    return sum(finished_result(job) is not None for job in jobs)


def _records(params: Params) -> dict[str, FinishedPacking] | None:
    if not (UNTRAINED / "config.json").exists():
        return None
    try:
        return {name: FinishedPacking.read(PACKED / f"{name}.json") for name in base_domains(params)}
    except ContractError:
        return None


def _key(params: Params, name: str, tokenizer: Tokenizer, record: FinishedPacking) -> str:
    """Return the key that the stage `base` would pack a domain under, at the commit where it last read the hub."""
    domain = params.domains[name]
    if record.domain.revision is None:
        domain = domain.model_copy(update={"max_tokens": None})
    return packing_key(name, domain, tokenizer, params.data, record.domain.revision)


def _is_untrained(params: Params, folder: Path, shape: Shape) -> bool:
    """Return whether a folder has the untrained model that these settings describe."""
    assert params.base is not None
    try:
        seed = json.loads((folder / SEED).read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError):
        return False
    described = shape_of(llama_config(shape, params.data.sequence_length, params.base.vocabulary_size))
    return seed == params.base.training.seed and shape_of_folder(str(folder)) == described
