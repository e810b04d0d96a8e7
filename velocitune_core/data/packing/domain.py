"""Packing a domain from its configured source: a finished result is reused, an interrupted one is resumed."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import tokenizers

from velocitune_core.config import Data, Domain
from velocitune_core.contracts import Contract, ContractError, DomainManifest
from velocitune_core.data.packing.packer import SHARD_TOKENS, Watcher, pack_domain
from velocitune_core.data.sources import MalformedRows, read_documents, source_files
from velocitune_core.data.tokenize import Tokenizer, tokenizer_digest
from velocitune_core.files import file_sha256

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

    Return the domain's manifest and the malformed rows that were skipped. Packing a data set on the hub is neither
    reused nor resumed, since a change of it cannot be detected. Raises PackingError and SourceError.
    """
    key, record = packing_key(name, domain, tokenizer, data), folder.with_name(f"{folder.name}.json")
    if (finished := _finished(record, key, data.max_malformed_rows)) and folder.is_dir():
        rows = MalformedRows(data.max_malformed_rows, finished.domain.malformed, finished.malformed_shown)
        return finished.domain, rows
    malformed = MalformedRows(data.max_malformed_rows)
    documents = read_documents(domain.source, Path(data.path), malformed)
    packed = pack_domain(
        name,
        documents,
        tokenizer,
        data,
        domain.max_tokens,
        folder,
        key=key,
        shard_tokens=shard_tokens,
        watch=watch,
    ).model_copy(update={"malformed": malformed.count})
    if key is not None:
        FinishedPacking(key=key, domain=packed, malformed_shown=malformed.shown).write(record)
    return packed, malformed


def packing_key(name: str, domain: Domain, tokenizer: Tokenizer, data: Data) -> str | None:
    """Return a hash of everything that decides a domain's packed files; None for a data set on the hub.

    A file of the source counts as unchanged while its path, size and modification time are. The limit on malformed rows
    is left out: it decides whether packing succeeds, not what it writes.
    """
    files = source_files(domain.source, Path(data.path))
    if files is None:
        return None
    content = {
        "name": name,
        "domain": domain.model_dump(mode="json"),
        "data": data.model_dump(mode="json", exclude={"max_malformed_rows"}),
        "tokenizer": tokenizer_digest(tokenizer),
        "files": files,
        "code": [file_sha256(file) for file in sorted(_WING.rglob("*.py"))],
        "tokenizers": tokenizers.__version__,
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finished(record: Path, key: str | None, allowed: int) -> FinishedPacking | None:
    """Return the record of a finished packing with this key and at most `allowed` malformed rows, if there is one."""
    try:
        finished = FinishedPacking.read(record)
    except ContractError:
        return None
    return finished if finished.key == key and finished.domain.malformed <= allowed else None
