"""Whether what is packed is what the settings describe: a manifest of other settings is of other text."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import ContractError, Manifest
from velocitune_core.data.sources import source_files
from velocitune_core.model.folder import tokenizer_files_digest
from velocitune_core.style.text import listed

NOT_PACKING = {"max_malformed_rows", "document_mask"}  # settings of `data` that change no packed row


def settings_digest(params: Params, name: str) -> str:
    """Return a hash of what decides a domain's packed rows.

    It is made of the settings of its data and source, of its files' paths and sizes, and of the tokenizer's files, or
    for the pipeline's own base of what its tokenizer is trained on. Times of files are left out: a copy or a checkout
    of the same data has others. No tokenizer is loaded, which takes seconds: every command of the pipeline calls this.
    """
    return _digest(params, name, _tokenizer_of(params))


def packed_manifest(params: Params) -> tuple[Manifest | None, str | None]:
    """Return prepared/manifest.json if it is of these settings; else None, and how it differs if there is one."""
    if not paths.MANIFEST.exists():
        return None, None
    try:
        manifest = Manifest.read(paths.MANIFEST)
    except ContractError as error:
        return None, str(error)
    differs = _difference(params, manifest)
    return (manifest, None) if differs is None else (None, f"{paths.MANIFEST} {differs}, and is not used")


def _difference(params: Params, manifest: Manifest) -> str | None:
    packed = manifest.domains | manifest.measured
    if list(manifest.domains) != params.training_domains or set(packed) != set(params.domains):
        return "has other domains"
    if manifest.sequence_length != params.data.sequence_length:
        return "has another sequence length"
    if any(each.settings_sha256 is None for each in packed.values()):
        return "was made by an earlier version (the stage prepare makes it again)"
    tokenizer = _tokenizer_of(params)
    if others := [name for name in params.domains if packed[name].settings_sha256 != _digest(params, name, tokenizer)]:
        what = "other settings of data, from other files or with another tokenizer"
        return f"was made under {what}, for {listed(others)}"
    return None


def _digest(params: Params, name: str, tokenizer: Any) -> str:
    data = params.data.model_dump(mode="json", exclude=NOT_PACKING)
    content = {"data": data, "domain": _text_of(params, name), "tokenizer": tokenizer}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _tokenizer_of(params: Params) -> Any:
    """Return what decides the tokenizer, as JSON."""
    if params.base is None or not _is_own_model(Path(params.model.path)):
        return tokenizer_files_digest(Path(params.model.path))
    trained_on = params.base.domains or params.training_domains
    return [params.base.vocabulary_size, {each: _text_of(params, each) for each in trained_on}]


def _text_of(params: Params, name: str) -> dict[str, Any]:
    domain = params.domains[name]
    files = source_files(domain.source, Path(params.data.path))
    found = None if files is None else [(path, size) for path, size, _ in files]
    return {"settings": domain.model_dump(mode="json"), "files": found}


def _is_own_model(path: Path) -> bool:
    """Return whether the pipeline trains the tokenizer of a folder: the base's, or that of the untrained base."""
    return path == paths.BASE_MODEL or path.is_relative_to(paths.RUNS)
