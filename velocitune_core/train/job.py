"""The JSON file that a training process is started with: everything it needs, nothing it must look up."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from velocitune_core.config import (
    ConfigError,
    Evaluation,
    Fraction,
    Name,
    Positive,
    Section,
    StrategyConfig,
    Training,
    describe_problems,
)
from velocitune_core.contracts import DomainFiles


class TrainJob(Section):
    """One training: of the embedded base, of a proxy, or the continual pretraining itself."""

    name: Name
    output: str  # folder: events.jsonl, checkpoints/, result.json, model/
    model: str  # transformers folder to start from
    model_sha256: str = ""  # of its weights, so that another model under the same name is another job
    domains: dict[Name, DomainFiles] = Field(min_length=1)
    weights: dict[Name, float]  # w_0
    fraction: Fraction = 1.0  # share of every domain that may be drawn
    total_steps: Positive
    training: Training
    evaluation: Evaluation
    strategy: StrategyConfig
    reference: str | None = None  # transformers folder of a trained model that the strategy compares losses with
    reference_sha256: str = ""  # of its weights
    save_model: bool = True
    threads: Positive | None = None

    @model_validator(mode="after")
    def _weights_name_the_domains(self) -> Self:
        if set(self.weights) != set(self.domains):
            raise ValueError(f"weights name {sorted(self.weights)}, domains are {sorted(self.domains)}")
        return self

    def fingerprint(self) -> str:
        """Hash of all that decides the result: not of where it is written, nor of how many threads compute it."""
        content = self.model_dump(mode="json", exclude={"output", "threads"})
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_job(path: Path) -> TrainJob:
    """Raises ConfigError with every problem of the file."""
    try:
        return TrainJob.model_validate_json(path.read_text(encoding="utf-8"), strict=False)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the JSON job of a training") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{path}:\n{describe_problems(error)}") from None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Fields in which two JSON trees differ, one line each: `field: old → new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(set(old) | set(new)):
            lines += differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return lines
    return [] if old == new else [f"  {path}: {old!r} → {new!r}"]
