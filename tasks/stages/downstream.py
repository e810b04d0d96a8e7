"""Bits per byte of gold answers, for any number of models on the same questions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from prefect import task

from tasks.runs.devices import leased_device
from tasks.views.prefect_artifacts import publish_table
from tasks.views.terminal import print_table
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import command_line, parse, run_flow
from velocitune_core.config import Params
from velocitune_core.contracts import DownstreamResult, DownstreamScores, DownstreamTask, Manifest
from velocitune_core.data.sources import MalformedRows, read_documents
from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Families, read_families, sample_evenly
from velocitune_core.evaluation.contamination import without_overlap
from velocitune_core.model.folder import check_model_folder
from velocitune_core.model.io import load_model
from velocitune_core.model.tokenizer import load_tokenizer

if TYPE_CHECKING:  # these import torch, which takes seconds
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from velocitune_core.evaluation.bits_per_byte import Score

logger = logging.getLogger(__name__)
RESULT = Path("results/downstream.json")


@dataclass(frozen=True)
class Questions:
    """The questions that every model is evaluated on, and how many of each task were excluded before sampling."""

    families: Families
    excluded: dict[str, int]


def check_models(folders: Iterable[Path]) -> None:
    """Raise DownstreamError naming everything that is missing from the model folders."""
    problems = [
        f"model folder: {problem.removeprefix('model.path: ')}"
        for folder in folders
        for problem in check_model_folder(str(folder))
    ]
    if problems:
        raise DownstreamError("\n".join(problems))


@task(name="sample downstream questions")
def sample_questions(params: Params, archives: Path = paths.ARCHIVES) -> Questions:
    """Sample each task's questions evenly from those that share no long run of words with a document of any domain.

    Every document of the domains is read once, which takes one core about a second per million words. Raises
    DownstreamError for a missing archive or an unknown task, SourceError for a domain that cannot be read.
    """
    families = read_families(archives, params.downstream.tasks)
    clean, shared = without_overlap(families, _documents(params))
    for identifier, words in shared.items():
        logger.info("excluded %s: %r is in a training document too", identifier, words)
    excluded = {
        name: len(found) - len(clean[family][name])
        for family, tasks in families.items()
        for name, found in tasks.items()
    }
    sampled = {
        family: {name: sample_evenly(found, params.downstream.instances) for name, found in tasks.items()}
        for family, tasks in clean.items()
    }
    return Questions(sampled, excluded)


@task(name="evaluate downstream")
def evaluate_downstream(model_folder: Path, questions: Questions, params: Params) -> DownstreamScores:
    """Evaluate one model, in float32 so that the values are the same on every machine.

    It waits for a device of its own, so do not call it while holding one. Raises DownstreamError for a folder that
    lacks files, a tokenizer of another model, or parameters that are not finite; ModelError for files that cannot be
    loaded.
    """
    import torch

    from velocitune_core.evaluation.bits_per_byte import context_window, encode, score

    check_models([model_folder])
    start = time.perf_counter()
    with leased_device(params.resources) as leased:
        device = torch.device("cuda", leased.gpus[0]) if leased.gpus else torch.device("cpu")
        model, tokenizer = _load(str(model_folder))
        window = context_window(model.config, params.downstream.context_tokens)
        encoded = {
            name: [encode(each, tokenizer, window) for each in found]
            for tasks in questions.families.values()
            for name, found in tasks.items()
        }
        torch.nn.Module.to(model, device)
        scores = score(model, encoded, batch_tokens=params.resources.downstream_batch_tokens, device=device)
    tasks = {
        family: {name: _result(scores[name], questions.excluded[name]) for name in found}
        for family, found in questions.families.items()
    }
    return DownstreamScores(
        context_tokens=window,
        families={family: mean(each.bits_per_byte for each in found.values()) for family, found in tasks.items()},
        tasks=tasks,
        seconds=time.perf_counter() - start,
    )


@task(name="write downstream result")
def write_downstream(models: Mapping[str, DownstreamScores]) -> DownstreamResult:
    """Write results/downstream.json."""
    result = DownstreamResult(models=dict(models))
    result.write(RESULT)
    return result


def show_downstream(result: DownstreamResult) -> None:
    """Show a table in Prefect's UI and on the terminal. Call it from within a flow."""
    title, rows = "Bits per byte of gold answers; smaller is better", downstream_rows(result)
    publish_table("downstream", title, rows)
    print_table(title, rows)


def downstream_rows(result: DownstreamResult) -> list[dict[str, str | float]]:
    """Return a row per task, followed by the mean of its family; a column per model, in bits per byte."""
    models = result.models
    rows: list[dict[str, str | float]] = []
    for family, tasks in next(iter(models.values())).tasks.items():
        for name, first in tasks.items():
            cut = max(model.tasks[family][name].shortened for model in models.values())
            counts = {"questions": first.instances, "excluded": first.excluded, "cut": cut}
            values = {folder: round(model.tasks[family][name].bits_per_byte, 4) for folder, model in models.items()}
            rows.append({"family": family, "task": name, **counts, **values})
        values = {folder: round(model.families[family], 4) for folder, model in models.items()}
        rows.append({"family": family, "task": "mean", "questions": "", "excluded": "", "cut": "", **values})
    return rows


def run_downstream(downstream: Callable[[list[Path]], object], arguments: Sequence[str] | None = None) -> None:
    """Command line of the flow `downstream`."""
    parser = command_line("downstream")
    parser.add_argument(
        "models", metavar="MODEL_FOLDER", nargs="*", type=Path, help="default: models/base models/trained"
    )
    folders = parse(parser, arguments).models or [paths.BASE_MODEL, paths.TRAINED_MODEL]

    def check() -> None:
        checked_params()
        check_models(folders)

    run_flow(lambda: downstream(folders), check)


def _documents(params: Params) -> Iterator[str]:
    """Yield every text that a model of this workspace may have been trained on, and the held-out ones."""
    packed = Manifest.read(paths.MANIFEST).domains if paths.MANIFEST.exists() else {}
    for name, domain in params.domains.items():
        malformed = MalformedRows(params.data.max_malformed_rows)
        known = packed.get(name)
        revision = None if known is None else known.revision
        documents = read_documents(domain.source, Path(params.data.path), malformed, revision)
        read = None if known is None or known.read_to_end else known.documents_read  # of the hub, no more was used
        for document in islice(documents, read):
            yield document.text


def _load(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    embeddings: Any = model.get_input_embeddings()
    largest, rows = max(tokenizer.get_vocab().values()), embeddings.weight.shape[0]
    if largest >= rows:
        raise DownstreamError(
            f"model folder: the tokenizer of {folder} has the token id {largest}, and the model embeds only {rows} "
            "tokens; save the tokenizer that belongs to the model beside it"
        )
    return model, tokenizer


def _result(score: Score, excluded: int) -> DownstreamTask:
    return DownstreamTask(
        instances=score.instances,
        excluded=excluded,
        shortened=score.shortened,
        tokens=score.tokens,
        bytes=score.bytes,
        nats=score.nats,
        bits_per_byte=score.bits_per_byte,
    )
