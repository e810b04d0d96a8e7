"""Bits per byte of gold answers, for any number of models on the same questions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import mean
from threading import Lock

from prefect import task

from tasks.runs.evaluation_jobs import questions_job
from tasks.runs.launch import run_evaluation
from tasks.views.prefect_artifacts import publish_table
from tasks.views.prefect_progress import PrefectWatcher
from tasks.views.terminal import TerminalWatcher, print_lines, print_table
from tasks.workspace import paths
from tasks.workspace.fresh import starting_over
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import add_fresh, command_line, parse, path_argument, run_flow
from tasks.workspace.stage_files import how_to_make
from velocitune_core.config import Params
from velocitune_core.contracts import (
    DownstreamResult,
    DownstreamScores,
    DownstreamTask,
    Manifest,
    MeasuredSet,
    Question,
    Questions,
    TaskQuestions,
)
from velocitune_core.data.sources import MalformedRows, read_documents
from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Instance, read_families, sample_evenly
from velocitune_core.evaluation.contamination import without_overlap
from velocitune_core.files import write_text
from velocitune_core.model.folder import check_model_folder

logger = logging.getLogger(__name__)
RESULT = Path("results/downstream.json")
QUESTIONS = paths.RUNS / "questions"  # samples, by their hash
KEY_LENGTH = 12  # of the hash, in hexadecimal digits
_writing = Lock()  # runs of a comparison need the same file


def check_models(folders: Iterable[Path]) -> None:
    """Raise DownstreamError naming everything that is missing from the model folders, and how to make a stage's."""
    problems = []
    for folder in folders:
        if not folder.exists() and (command := how_to_make(folder)):
            problems.append(f"model folder: {folder} is not there: make it with `{command}`")
        else:
            found = check_model_folder(str(folder))
            problems += [f"model folder: {problem.removeprefix('model.path: ')}" for problem in found]
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
    return Questions(
        families={
            family: {name: _sampled(clean[family][name], len(found), params) for name, found in tasks.items()}
            for family, tasks in families.items()
        }
    )


@task(name="evaluate downstream")
def evaluate_downstream(
    model_folder: Path, questions: Questions, params: Params, name: str = "downstream", *, spread: bool = True
) -> DownstreamScores:
    """Evaluate one model, in the precision of the training.

    It waits for a device of its own, so do not call it while holding one.

    Args:
        name: of the run.
        spread: use as many processes of one node as `resources` has; else one, on one device.

    Raises DownstreamError for a folder that lacks files, and TrainingFailedError with the end of the log for a
    tokenizer of another model, parameters that are not finite, or files that cannot be loaded.
    """
    check_models([model_folder])
    job = questions_job(params, _written(questions), name, model_folder)
    resources = params.resources.model_copy(update={"nodes": 1})
    result = run_evaluation(job, resources, [TerminalWatcher(), PrefectWatcher(job.name)], spread=spread)
    assert result.context_tokens is not None
    tasks = {
        family: {name: _result(result.sets[name], task.excluded) for name, task in found.items()}
        for family, found in questions.families.items()
    }
    return DownstreamScores(
        precision=result.precision,
        context_tokens=result.context_tokens,
        families={family: mean(each.bits_per_byte for each in found.values()) for family, found in tasks.items()},
        tasks=tasks,
        seconds=result.seconds,
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
    print_lines([f"scores   {RESULT}"])


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
        "models", metavar="MODEL_FOLDER", nargs="*", type=path_argument, help="default: models/base models/trained"
    )
    add_fresh(parser)
    given = parse(parser, arguments)
    folders = given.models or [paths.BASE_MODEL, paths.TRAINED_MODEL]

    def check() -> None:
        checked_params()
        check_models(folders)

    with starting_over(given.fresh):
        run_flow(lambda: downstream(folders), check)


def _documents(params: Params) -> Iterator[str]:
    """Yield every text that a model of this workspace may have been trained on, and the held-out ones."""
    packed = Manifest.read(paths.MANIFEST).domains if paths.MANIFEST.exists() else {}
    for name in params.training_domains:
        domain, malformed = params.domains[name], MalformedRows(params.data.max_malformed_rows)
        known = packed.get(name)
        revision = None if known is None else known.revision
        documents = read_documents(domain.source, Path(params.data.path), malformed, revision)
        read = None if known is None or known.read_to_end else known.documents_read  # of the hub, no more was used
        for document in islice(documents, read):
            yield document.text


def _sampled(clean: Sequence[Instance], found: int, params: Params) -> TaskQuestions:
    """Return the sample of one task: of the `clean` questions among those that were found."""
    sample = sample_evenly(clean, params.downstream.instances)
    return TaskQuestions(
        excluded=found - len(clean),
        questions=[Question(identifier=e.identifier, context=e.context, continuation=e.continuation) for e in sample],
    )


def _written(questions: Questions) -> Path:
    """Return the file of a sample, which the training program reads; written once."""
    text = questions.model_dump_json()
    path = QUESTIONS / f"{sha256(text.encode()).hexdigest()[:KEY_LENGTH]}.json"
    with _writing:
        if not path.exists():
            write_text(path, text)
    return path


def _result(measured: MeasuredSet, excluded: int) -> DownstreamTask:
    assert measured.bytes is not None
    return DownstreamTask(
        instances=measured.sequences,
        excluded=excluded,
        shortened=measured.shortened,
        tokens=measured.tokens,
        bytes=measured.bytes,
        nats=measured.nats,
        bits_per_byte=measured.bits_per_byte,
    )
