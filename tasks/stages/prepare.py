"""The stage `prepare`: documents → packed sequences and a manifest."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import closing

from prefect import task

from tasks.views.terminal import PackingBar
from tasks.workspace import paths
from tasks.workspace.packed_data import settings_digest
from tasks.workspace.source_rows import ReadSource, read_source, warn_of_malformed
from velocitune_core.config import Params
from velocitune_core.contracts import DomainManifest, Manifest
from velocitune_core.data.borders import document_borders
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.sources import SourceError
from velocitune_core.data.tokenize import PackingError, tokenizer_digest
from velocitune_core.files import discard, replacing
from velocitune_core.model.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


@task(task_run_name="pack {name}")
def pack(name: str, params: Params) -> DomainManifest:
    """Deduplicate, split, tokenise and pack one domain into runs/packing/<name>, resuming an interrupted packing."""
    domain = params.domains[name]
    tokenizer, packed_from = load_tokenizer(params.model.path), settings_digest(params, name)
    with closing(PackingBar(name, domain.max_tokens)) as bar:
        packed, malformed = pack_source(name, domain, tokenizer, params.data, paths.PACKING / name, bar)
    if not bar.started:
        logger.info("%s: already packed in %s", name, paths.PACKING / name)
    warn_of_malformed(name, malformed.count, malformed.shown)
    if not packed.read_to_end:
        logger.info("%s: %d documents of the hub were enough; the rest was not read", name, packed.documents_read)
    if packed.held_out.sequences < params.data.held_out_sequences:
        logger.warning(
            "%s has %d held-out sequences, fewer than data.held_out_sequences %d: its losses have a larger error",
            name,
            packed.held_out.sequences,
            params.data.held_out_sequences,
        )
    return packed.model_copy(update={"settings_sha256": packed_from})


@task(task_run_name="read through {name}")
def read_through(name: str, params: Params) -> ReadSource:
    """Read a whole source, so that its malformed rows show before any computation."""
    return read_source(name, params)


def all_packed(names: Sequence[str], packed: Sequence[DomainManifest | BaseException]) -> dict[str, DomainManifest]:
    """Return the packed domains by name.

    Raises PackingError with the problems of all domains that cannot be packed, or the first error of another kind.
    """
    failed = [each for each in packed if isinstance(each, BaseException)]
    for error in failed:
        if not isinstance(error, SourceError | PackingError):
            raise error
    if failed:
        raise PackingError("\n".join(map(str, failed)))
    return {name: each for name, each in zip(names, packed, strict=True) if isinstance(each, DomainManifest)}


@task(name="write manifest")
def write_manifest(params: Params, domains: dict[str, DomainManifest]) -> Manifest:
    """Move the packed domains into `prepared` and write manifest.json, with the domains in the order of params.yaml.

    Folders of domains that are no longer configured, and the leftovers of interrupted runs, are deleted.
    """
    paths.PREPARED.mkdir(exist_ok=True)
    for name in domains:
        with replacing(paths.PREPARED / name) as temporary:
            shutil.move(paths.PACKING / name, temporary)
    for folder in paths.PREPARED.iterdir():
        if folder.is_dir() and folder.name not in domains:
            shutil.rmtree(folder)
    tokenizer = load_tokenizer(params.model.path)
    manifest = Manifest(
        sequence_length=params.data.sequence_length,
        vocabulary_size=len(tokenizer),
        tokenizer_sha256=tokenizer_digest(tokenizer),
        documents=document_borders(tokenizer, params.data),
        domains={name: domains[name] for name in params.training_domains},
        measured={name: each for name, each in domains.items() if name not in params.training_domains},
    )
    manifest.write(paths.MANIFEST)
    discard(paths.PACKING)
    return manifest
