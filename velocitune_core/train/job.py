"""The JSON file that the training program is started with: everything it needs, nothing it must look up.

Its recipe decides the result and is the run's identity; its `execution` only says how the result is computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from velocitune_core.config import (
    RENAMED,
    ConfigError,
    Evaluation,
    Execution,
    Fraction,
    Name,
    Positive,
    SaveDtype,
    Section,
    StrategyConfig,
    Training,
    added_field,
    describe_problems,
    micro_batch_problem,
)
from velocitune_core.contracts import DomainFiles
from velocitune_core.evaluation.evaluation_job import KEY_LENGTH, EvaluationJob, HeldOutFile
from velocitune_core.files import RepeatedKeyError, unique_keys

NOT_RECIPE = (
    "name",
    "output",
    "execution",
    "threads",
    "start_id",
    "runs_alike",
)  # fields that do not decide the result
_RENAMED = {**RENAMED, "weights": "initial_domain_weights"}


class TrainJob(Section):
    """One run: of the embedded base, of a proxy, or the continual pretraining itself."""

    name: Name
    output: str  # folder: events.jsonl, checkpoints/, result.json, model/
    model: str  # transformers folder to start from
    model_sha256: str = ""  # of its parameters, so that another model under the same path is another recipe
    domains: dict[Name, DomainFiles] = Field(min_length=1)
    measured: dict[Name, HeldOutFile] = added_field({})  # sets without training text, measured at the end
    initial_domain_weights: dict[Name, float]  # w_0
    document_start: Annotated[int, Field(ge=0)] | None = None  # token id; attention stays inside documents; None: not
    fraction: Fraction = 1.0  # share of every domain that may be drawn
    total_steps: Positive
    training: Training  # its precision resolved, never "auto"
    evaluation: Evaluation
    strategy: StrategyConfig
    reference: str | None = None  # transformers folder of a trained model that the strategy compares losses with
    reference_sha256: str = ""  # of its parameters
    save_model: bool = True
    save_dtype: SaveDtype = added_field("auto")  # of the saved model's weights
    execution: Execution = Execution()
    threads: Positive | None = None  # per process
    runs_alike: Positive = 1  # runs of one model and batch that share compiled code, as in a comparison
    start_id: str = ""  # of this start of the run, which its outcome repeats

    @model_validator(mode="after")
    def _weights_name_the_domains(self) -> Self:
        if set(self.initial_domain_weights) != set(self.domains):
            raise ValueError(
                f"initial_domain_weights name {sorted(self.initial_domain_weights)}, domains are {sorted(self.domains)}"
            )
        return self

    @model_validator(mode="after")
    def _precision_is_resolved(self) -> Self:
        if self.training.precision == "auto":
            raise ValueError("training.precision is 'auto'; a job names the precision: 'float32' or 'bfloat16'")
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Self:
        if problem := micro_batch_problem(self.training, self.execution):
            raise ValueError(problem)
        return self

    def files(self) -> Iterator[tuple[Path, str]]:
        """Yield each packed file that is read, with its SHA-256."""
        for domain in self.domains.values():
            yield Path(domain.train), domain.train_sha256
            yield Path(domain.held_out), domain.held_out_sha256
        for file in self.measured.values():
            yield Path(file.path), file.sha256

    def recipe(self) -> dict[str, Any]:
        """Return all that decides the result, as a JSON-ready tree."""
        return recipe_of(self.model_dump(mode="json"))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the recipe."""
        return sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of its run folder: another recipe has another one, another way of executing it the same."""
        return f"{self.name}-{self.fingerprint()[:KEY_LENGTH]}"


Job = TrainJob | EvaluationJob


def read_job(path: Path) -> Job:
    """Read and check a job. Raises ConfigError with every problem of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the JSON job of a run") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    kind = _kind_of(text)
    try:
        job = kind.model_validate_json(text, strict=False)
        json.loads(text, object_pairs_hook=unique_keys)  # pydantic takes the last of a key that is there twice
    except RepeatedKeyError as error:
        raise ConfigError(f"{path}: {error}; remove one") from None
    except ValidationError as error:
        raise ConfigError(f"{path}:\n{describe_problems(error, _RENAMED, of=kind)}") from None
    return job


def _kind_of(text: str) -> type[Job]:
    """Return the class of a job's JSON: only an evaluation names its kind."""
    try:
        tree = json.loads(text)
    except ValueError:  # validation describes it
        return TrainJob
    return EvaluationJob if isinstance(tree, dict) and tree.get("kind") == "evaluation" else TrainJob


def recipe_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe in the JSON tree of a job, whichever version of the program wrote it.

    Of the token budget it has `total_steps` alone: two budgets of as many steps are one recipe.
    """
    recipe = {key: value for key, value in tree.items() if key not in NOT_RECIPE}
    if recipe.get("document_start") is None:  # as in recipes of before the field
        recipe.pop("document_start", None)
    if isinstance(training := recipe.get("training"), dict):
        recipe["training"] = {key: value for key, value in training.items() if key != "token_budget"}
    return recipe


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the fields in which two JSON trees differ, one line each: `field: old → new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(set(old) | set(new)):
            lines += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if old == new else [f"  {path}: {old!r} → {new!r}"]
