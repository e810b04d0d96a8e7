"""The stage `prepare`: documents → packed sequences and a manifest."""

from __future__ import annotations

import logging
import shutil
from contextlib import closing
from pathlib import Path

from prefect import task

from tasks.views.terminal import PackingBar
from tasks.workspace import paths
from tasks.workspace.said_once import warn_once
from velocitune_core.config import Params
from velocitune_core.contracts import DomainManifest, Manifest
from velocitune_core.data.borders import document_borders
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.sources import MalformedRows, is_on_hub, read_documents
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.files import replacing
from velocitune_core.model.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


@task(task_run_name="pack {name}")
def pack(name: str, params: Params) -> DomainManifest:
    """Deduplicate, split, tokenise and pack one domain into runs/packing/<name>, resuming an interrupted packing."""
    domain = params.domains[name]
    tokenizer = load_tokenizer(params.model.path)
    with closing(PackingBar(name, domain.max_tokens)) as bar:
        packed, malformed = pack_source(name, domain, tokenizer, params.data, paths.PACKING / name, bar)
    if not bar.started:
        logger.info("%s: already packed in %s", name, paths.PACKING / name)
    _warn_of_malformed(name, malformed)
    if not packed.read_to_end:
        logger.info("%s: %d documents of the hub were enough; the rest was not read", name, packed.documents_read)
    if packed.held_out.sequences < params.data.held_out_sequences:
        logger.warning(
            "%s has %d held-out sequences, fewer than data.held_out_sequences %d: its losses have a larger error",
            name,
            packed.held_out.sequences,
            params.data.held_out_sequences,
        )
    return packed


@task(task_run_name="read through {name}")
def read_through(name: str, params: Params) -> int:
    """Read a whole domain and return its number of documents, so that malformed rows show before any computation.

    A data set on the hub is left to the packing, which reads no more of it than it needs.
    """
    if is_on_hub(params.domains[name].source, Path(params.data.path)):
        return 0
    malformed = MalformedRows(params.data.max_malformed_rows)
    documents = sum(1 for _ in read_documents(params.domains[name].source, Path(params.data.path), malformed))
    _warn_of_malformed(name, malformed)
    return documents


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
    shutil.rmtree(paths.PACKING)
    return manifest


def _warn_of_malformed(name: str, malformed: MalformedRows) -> None:
    """Warn of rows that were skipped, unless another stage of the command has, which read the same."""
    if malformed.count:
        rows = "row" if malformed.count == 1 else "rows"
        warn_once(f"{name}: skipped {malformed.count} malformed {rows}:\n" + "\n".join(malformed.shown))
