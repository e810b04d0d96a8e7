"""Documents → packed sequences and a manifest."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from threading import Lock

from prefect import task

from tasks import paths
from velocitune_core.config import Params
from velocitune_core.contracts import DomainManifest, Manifest
from velocitune_core.model import load_tokenizer
from velocitune_core.packing import pack_domain, tokenizer_digest
from velocitune_core.sources import read_documents

logger = logging.getLogger(__name__)
_loading = Lock()  # transformers finds its names when first asked, which fails in two threads at once


@task(task_run_name="pack {name}")
def pack(name: str, params: Params) -> DomainManifest:
    """Deduplicate, split, tokenise and pack one domain into prepared/<name>."""
    domain = params.domains[name]
    documents = read_documents(domain.source, Path(params.data.path))
    with _loading:
        tokenizer = load_tokenizer(params.model.path)
    packed = pack_domain(name, documents, tokenizer, params.data, domain.max_tokens, paths.PREPARED / name)
    if packed.held_out.sequences < params.data.held_out_sequences:
        logger.warning(
            "%s has %d held-out sequences, fewer than data.held_out_sequences %d: its losses are less certain",
            name,
            packed.held_out.sequences,
            params.data.held_out_sequences,
        )
    return packed


@task(task_run_name="read through {name}")
def read_through(name: str, params: Params) -> int:
    """Read a domain to its end and count its documents: bad rows show before anything is computed."""
    return sum(1 for _ in read_documents(params.domains[name].source, Path(params.data.path)))


@task(name="write manifest")
def write_manifest(params: Params, domains: dict[str, DomainManifest]) -> Manifest:
    """prepared/manifest.json: counts and hashes of all domains, in the order of params.yaml.

    Folders of domains that are no longer named go.
    """
    for folder in paths.PREPARED.iterdir():
        if folder.is_dir() and folder.name not in domains:
            shutil.rmtree(folder)
    tokenizer = load_tokenizer(params.model.path)
    manifest = Manifest(
        sequence_length=params.data.sequence_length,
        vocabulary_size=len(tokenizer),
        tokenizer_sha256=tokenizer_digest(tokenizer),
        domains=domains,
    )
    manifest.write(paths.MANIFEST)
    return manifest
