"""The embedded base model: a tokenizer and a small Llama trained from scratch on one domain."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from prefect import task

from tasks import paths
from tasks.jobs import base_job
from tasks.launch import run_folder, run_training
from tasks.tracking import Tracker
from tasks.watchers import PackingBar, PrefectWatcher, TerminalWatcher
from velocitune_core.atomic import replacing
from velocitune_core.config import Base, Params
from velocitune_core.contracts import DomainManifest, TrainResult
from velocitune_core.model import build_llama, load_tokenizer, save_model, train_tokenizer
from velocitune_core.packing import document_digest, is_held_out
from velocitune_core.packing_run import pack_source
from velocitune_core.sources import MalformedRows, read_documents

SCRATCH = paths.RUNS / "base-inputs"
UNTRAINED, PACKED = SCRATCH / "untrained", SCRATCH / "packed"


@task(name="build untrained model")
def build_untrained(params: Params) -> None:
    """A tokenizer trained on the training side of the base's domain, and a model with random weights."""
    base = _base(params)
    malformed = MalformedRows(params.data.malformed_rows)
    documents = read_documents(params.domains[base.domain].source, Path(params.data.path), malformed)
    held_out = params.data.held_out_fraction
    texts = (each.text for each in documents if not is_held_out(document_digest(each.text), held_out))
    tokenizer = train_tokenizer(texts, base.vocabulary_size)
    model = build_llama(base, tokenizer, params.data.sequence_length, base.training.seed)
    save_model(model, tokenizer, UNTRAINED)


@task(name="pack base domain")
def pack_base(params: Params) -> DomainManifest:
    """All of the base's domain: its share of the later mixture may be smaller."""
    base = _base(params)
    domain = params.domains[base.domain].model_copy(update={"max_tokens": None})
    tokenizer = load_tokenizer(str(UNTRAINED))
    with closing(PackingBar(base.domain, None)) as bar:
        return pack_source(base.domain, domain, tokenizer, params.data, PACKED / base.domain, bar)[0]


@task(name="train base")
def train_base(params: Params, domain: DomainManifest) -> TrainResult:
    """Train the base and put it into models/base."""
    job = base_job(params, UNTRAINED, domain, PACKED)
    tracker = Tracker(params)
    watchers = [TerminalWatcher(), PrefectWatcher(job.name), tracker.child(job.name, run_folder(job).name)]
    result = run_training(job, params.resources, watchers)
    with replacing(paths.BASE_MODEL) as temporary:
        shutil.copytree(run_folder(job) / "model", temporary)
    return result


def _base(params: Params) -> Base:
    assert params.base is not None, "checked before any stage runs"
    return params.base
