"""Bits per byte of gold answers, for any number of models on the same questions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from prefect import task

from tasks.runs.devices import leased_device
from tasks.views.prefect_artifacts import print_table, publish_table
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import DownstreamResult, DownstreamScores, DownstreamTask
from velocitune_core.data.sources import MalformedRows, read_documents
from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Families, draw, read_families, without_overlap
from velocitune_core.model.folder import check_model_folder, load_model, load_tokenizer

if TYPE_CHECKING:  # these import torch, which takes seconds
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from velocitune_core.evaluation.bits_per_byte import Score

logger = logging.getLogger(__name__)
RESULT = Path("results/downstream.json")


@dataclass(frozen=True)
class Questions:
    """What every model is asked, and how many questions of each task were left out before the draw."""

    families: Families
    excluded: dict[str, int]


def check_models(folders: Iterable[Path]) -> None:
    """Raises DownstreamError naming everything that is missing from the folders."""
    problems = [
        f"model folder: {problem.removeprefix('model.path: ')}"
        for folder in folders
        for problem in check_model_folder(str(folder))
    ]
    if problems:
        raise DownstreamError("\n".join(problems))


@task(name="draw downstream questions")
def draw_questions(params: Params, archives: Path = paths.ARCHIVES) -> Questions:
    """An even draw per task from the questions that share no words with any document of any domain.

    Reads every document of the domains once: about a second of one core per million words. Raises DownstreamError for
    a missing archive or an unknown task, SourceError for a domain that cannot be read.
    """
    families = read_families(archives, params.downstream.tasks)
    clean, shared = without_overlap(families, _documents(params))
    for identifier, words in shared.items():
        logger.info("left out %s: %r is in a training document too", identifier, words)
    excluded = {
        name: len(found) - len(clean[family][name])
        for family, tasks in families.items()
        for name, found in tasks.items()
    }
    drawn = {
        family: {name: draw(found, params.downstream.instances) for name, found in tasks.items()}
        for family, tasks in clean.items()
    }
    return Questions(drawn, excluded)


@task(name="evaluate downstream")
def evaluate_downstream(model_folder: Path, questions: Questions, params: Params) -> DownstreamScores:
    """Score one model, in float32 so that the values are the same on every machine.

    Waits for a device of its own: do not call it while holding one. Raises DownstreamError for a folder that lacks
    files, a tokenizer of another model, or weights that are not finite; ModelError for files that cannot be loaded.
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
    """results/downstream.json"""
    result = DownstreamResult(models=dict(models))
    result.write(RESULT)
    return result


def show_downstream(result: DownstreamResult) -> None:
    """A table in Prefect's UI, from within a flow, and on the terminal."""
    title, rows = "Bits per byte of gold answers; smaller is better", downstream_rows(result)
    publish_table("downstream", title, rows)
    print_table(title, rows)


def downstream_rows(result: DownstreamResult) -> list[dict[str, str | float]]:
    """A row per task and, below a family's tasks, one for the family; a column per model."""
    models = result.models
    rows: list[dict[str, str | float]] = []
    for family, tasks in next(iter(models.values())).tasks.items():
        for name, first in tasks.items():
            cut = max(model.tasks[family][name].shortened for model in models.values())  # most of any model
            counts = {"questions": first.instances, "left out": first.excluded, "cut": cut}
            values = {folder: round(model.tasks[family][name].bits_per_byte, 4) for folder, model in models.items()}
            rows.append({"family": family, "task": name, **counts, **values})
        values = {folder: round(model.families[family], 4) for folder, model in models.items()}
        rows.append({"family": family, "task": "mean", "questions": "", "left out": "", "cut": "", **values})
    return rows


def _documents(params: Params) -> Iterator[str]:
    """Every text that a model of this workspace may have been trained on, held-out ones too."""
    for domain in params.domains.values():
        malformed = MalformedRows(params.data.max_malformed_rows)
        for document in read_documents(domain.source, Path(params.data.path), malformed):
            yield document.text


def _load(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    embeddings: Any = model.get_input_embeddings()
    largest, known = max(tokenizer.get_vocab().values()), embeddings.weight.shape[0]
    if largest >= known:
        raise DownstreamError(
            f"model folder: the tokenizer of {folder} has a token number {largest}, the model knows {known}; "
            "save the tokenizer that belongs to the model beside it"
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
