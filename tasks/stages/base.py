"""Stage `base`: a tokenizer and a small Llama, trained from scratch on some of the domains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from prefect import task

from tasks.runs.jobs import base_domains, base_job
from tasks.runs.launch import run_training
from tasks.runs.run_folder import run_folder
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import PackingBar, TerminalWatcher
from tasks.workspace import paths
from velocitune_core.config import Base, Params
from velocitune_core.contracts import DomainManifest, TrainResult
from velocitune_core.data.borders import document_borders
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.sources import MalformedRows, is_on_hub, read_documents
from velocitune_core.data.splits import document_digest, is_held_out
from velocitune_core.files import replacing
from velocitune_core.model.build import build_llama, save_untrained, train_tokenizer
from velocitune_core.model.tokenizer import load_tokenizer

CHARACTERS_PER_TOKEN = 4  # of English text; assumed where there is no tokenizer yet
SCRATCH = paths.RUNS / "base-inputs"
UNTRAINED, UNTRAINED_SIBLING, PACKED = SCRATCH / "untrained", SCRATCH / "untrained-sibling", SCRATCH / "packed"


@task(name="build untrained model")
def build_untrained(params: Params) -> None:
    """Train a tokenizer on the training documents of the base's domains; write it with a randomly initialised model."""
    base = _base(params)
    texts = chain.from_iterable(_training_texts(params, name) for name in base_domains(params))
    tokenizer = train_tokenizer(texts, base.vocabulary_size)
    seed = base.training.seed
    save_untrained(build_llama(base, tokenizer, params.data.sequence_length, seed), tokenizer, seed, UNTRAINED)


@task(name="pack base domains")
def pack_base(params: Params) -> dict[str, DomainManifest]:
    """Pack all documents of the base's domains; the later mixture may take fewer."""
    tokenizer = load_tokenizer(str(UNTRAINED))
    packed = {}
    for name in base_domains(params):
        domain = params.domains[name]
        if not is_on_hub(domain.source, Path(params.data.path)):  # what is there may be endless
            domain = domain.model_copy(update={"max_tokens": None})
        with closing(PackingBar(name, None)) as bar:
            packed[name] = pack_source(name, domain, tokenizer, params.data, PACKED / name, bar)[0]
    return packed


@task(name="train base")
def train_base(params: Params, domains: dict[str, DomainManifest]) -> TrainResult:
    """Train the base model and write it to models/base."""
    return _train(params, domains, "base", UNTRAINED, paths.BASE_MODEL)


@task(name="train sibling")
def train_sibling(params: Params, domains: dict[str, DomainManifest]) -> TrainResult:
    """Train a smaller model with the tokenizer, text and settings of the base, and write it to models/base/sibling."""
    base, tokenizer = _base(params), load_tokenizer(str(UNTRAINED))
    assert base.sibling is not None
    seed = base.training.seed  # no name is given to the model, which would stay in memory while it is trained elsewhere
    save_untrained(
        build_llama(base.sibling, tokenizer, params.data.sequence_length, seed), tokenizer, seed, UNTRAINED_SIBLING
    )
    return _train(params, domains, "sibling", UNTRAINED_SIBLING, paths.SIBLING_MODEL)


def has_sibling(params: Params) -> bool:
    """Return whether the settings describe a sibling of the base."""
    return _base(params).sibling is not None


def _train(
    params: Params, domains: dict[str, DomainManifest], name: str, untrained: Path, destination: Path
) -> TrainResult:
    borders = document_borders(load_tokenizer(str(untrained)), params.data)
    job = base_job(params, untrained, domains, PACKED, document_start=borders.attention_start, name=name)
    tracker = Tracker(params)
    watchers = [TerminalWatcher(), PrefectWatcher(job.name), tracker.child(job.name, run_folder(job))]
    result = run_training(job, params.resources, watchers)
    with replacing(destination) as temporary:
        shutil.copytree(run_folder(job) / "model", temporary)
    return result


def _training_texts(params: Params, name: str) -> Iterator[str]:
    """Yield the training documents of a domain; of one on the hub with max_tokens, about as much as will be packed."""
    domain = params.domains[name]
    limited = is_on_hub(domain.source, Path(params.data.path)) and domain.max_tokens is not None
    left = (domain.max_tokens or 0) * CHARACTERS_PER_TOKEN
    malformed = MalformedRows(params.data.max_malformed_rows)
    for document in read_documents(domain.source, Path(params.data.path), malformed):
        if limited and left <= 0:
            return
        if not is_held_out(document_digest(document.text), params.data.held_out_fraction):
            left -= len(document.text)
            yield document.text


def _base(params: Params) -> Base:
    assert params.base is not None, "checked before any stage runs"
    return params.base
