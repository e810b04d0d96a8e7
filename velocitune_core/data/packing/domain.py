"""Packing a domain from its configured source: a finished result is reused, an interrupted one is resumed."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import tokenizers

from velocitune_core.config import Data, Domain, Source
from velocitune_core.contracts import Contract, ContractError, DomainManifest
from velocitune_core.data.borders import document_borders
from velocitune_core.data.packing.packer import ALL_HELD_OUT, SHARD_TOKENS, pack_domain
from velocitune_core.data.packing.progress import Watcher
from velocitune_core.data.readers import hub_revision
from velocitune_core.data.sources import (
    MalformedRows,
    is_on_hub,
    left_out,
    read_documents,
    source_files,
    unwatched_digest,
)
from velocitune_core.data.tokenize import Tokenizer, tokenizer_digest
from velocitune_core.files import file_sha256

LEFT_OUT_SHOWN = 10
_WING = Path(__file__).parents[1]  # velocitune_core/data


class FinishedPacking(Contract):
    """<folder>.json beside a packed domain."""

    key: str
    domain: DomainManifest
    malformed_shown: list[str]


def pack_source(
    name: str,
    domain: Domain,
    tokenizer: Tokenizer,
    data: Data,
    folder: Path,
    watch: Watcher,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> tuple[DomainManifest, MalformedRows]:
    """Pack the documents of a domain's source into `folder` (see `pack_domain`).

    Return the domain's manifest and the malformed rows that were skipped. A data set on the hub is read at the commit
    that its revision names at present, which the manifest records, and no further than is needed for `max_tokens`.
    Raises PackingError and SourceError.
    """
    if domain.measure_only:
        data = data.model_copy(update={"held_out_fraction": ALL_HELD_OUT})
    root = Path(data.path)
    remote = is_on_hub(domain.source, root)
    revision = hub_revision(domain.source) if remote else None
    key, unread = packing_key(name, domain, tokenizer, data, revision), _unread(domain.source, root)
    if finished := _finished(folder, key, data.max_malformed_rows):
        rows = MalformedRows(data.max_malformed_rows, finished.domain.malformed, finished.malformed_shown)
        return finished.domain.model_copy(update=unread), rows
    malformed = MalformedRows(data.max_malformed_rows)
    outside = unwatched_digest(domain.source, root)
    documents = read_documents(domain.source, root, malformed, revision)
    packed = pack_domain(
        name,
        documents,
        tokenizer,
        data,
        domain.max_tokens,
        folder,
        key=key,
        shard_tokens=shard_tokens,
        stop_when_full=remote,
        watch=watch,
    )
    facts = {"malformed": malformed.count, "unwatched_sha256": outside, "revision": revision}
    packed = packed.model_copy(update={**facts, **unread})
    FinishedPacking(key=key, domain=packed, malformed_shown=malformed.shown).write(_record_of(folder))
    return packed, malformed


def packing_key(name: str, domain: Domain, tokenizer: Tokenizer, data: Data, revision: str | None = None) -> str:
    """Return a hash of everything that decides a domain's packed files.

    A file of the source counts as unchanged while its path, size and modification time are; a data set on the hub while
    its commit, `revision`, is. The limit on malformed rows is left out, as it decides whether packing succeeds, not
    what it writes, and so are the attention mask and files that are not read.
    """
    borders = document_borders(tokenizer, data)
    content = {
        "name": name,
        "domain": domain.model_dump(mode="json"),
        "data": data.model_dump(mode="json", exclude={"max_malformed_rows", "document_mask"}),
        "tokenizer": tokenizer_digest(tokenizer),
        "borders": [borders.start.ids, borders.end.ids],
        "files": source_files(domain.source, Path(data.path)),
        "revision": revision,
        "code": [file_sha256(file) for file in sorted(_WING.rglob("*.py"))],
        "tokenizers": tokenizers.__version__,
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _unread(source: Source, root: Path) -> dict[str, Any]:
    """Return the fields of a manifest on what a source holds and is not read."""
    others = left_out(source, root)
    return {"left_out": len(others), "left_out_shown": others[:LEFT_OUT_SHOWN]}


def _record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _finished(folder: Path, key: str, allowed: int) -> FinishedPacking | None:
    """Return the record of a finished packing with this key and at most `allowed` malformed rows, if there is one."""
    if not folder.is_dir():
        return None
    try:
        finished = FinishedPacking.read(_record_of(folder))
    except ContractError:
        return None
    return finished if finished.key == key and finished.domain.malformed <= allowed else None
