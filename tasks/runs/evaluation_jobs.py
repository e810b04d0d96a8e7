"""The evaluations of the pipeline, put together from settings and manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.runs.resolved_precision import resolve_precision
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import DomainManifest, Manifest
from velocitune_core.evaluation.evaluation_job import EvaluationJob, HeldOutFile, QuestionsFile
from velocitune_core.files import file_sha256
from velocitune_core.model.folder import tokenizer_files_digest
from velocitune_core.model.io import model_digest


def held_out_job(
    params: Params, manifest: Manifest, name: str, model: Path, model_sha256: str | None = None
) -> EvaluationJob:
    """Return the evaluation of a model on all held-out sets, in the arithmetic of the training.

    Args:
        model_sha256: of the model's parameters; None to hash the folder.
    """
    return EvaluationJob(
        name=name,
        output="",
        model=str(model),
        model_sha256=model_digest(model) if model_sha256 is None else model_sha256,
        held_out=held_out_files({**manifest.domains, **manifest.measured}),
        document_start=manifest.documents.attention_start,
        precision=resolve_precision(params.training),
        execution=params.execution,
    )


def held_out_files(domains: Mapping[str, DomainManifest]) -> dict[str, HeldOutFile]:
    """Return the held-out file of each domain or set."""
    splits = {name: domain.held_out for name, domain in domains.items()}
    return {
        name: HeldOutFile(path=str(paths.PREPARED / each.file), sha256=each.sha256) for name, each in splits.items()
    }


def questions_job(params: Params, questions: Path, name: str, model: Path) -> EvaluationJob:
    """Return the evaluation of a model on benchmark questions, in the arithmetic of the training.

    Args:
        questions: file of `Questions`.
    """
    return EvaluationJob(
        name=name,
        output="",
        model=str(model),
        model_sha256=model_digest(model),
        questions=QuestionsFile(
            path=str(questions),
            sha256=file_sha256(questions),
            context_tokens=params.downstream.context_tokens,
            tokenizer_sha256=tokenizer_files_digest(model),
        ),
        precision=resolve_precision(params.training),
        execution=params.execution,
        batch_tokens=params.resources.downstream_batch_tokens,
    )
