"""What all settings share: strict frozen sections, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from velocitune_core.config.misread import advice_on
from velocitune_core.files import path_problem

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
NAME_IN_WORDS = "a name has letters from a to z, digits, '_' and '-', no blanks, and begins with a letter or a digit"
Name = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        max_length=128,  # names become names of files (255 bytes) and keys in MLflow (250), with more around them
        description="letters, digits, '_' and '-'",
    ),
]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
LAST_PORT = 65535
WORD, KEYS = "[word]", "[keys]"  # tags of a union of a word and a section, which no key of the settings can be


def _no_text_for_numbers(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Refuse `0,5`, which is text to YAML: a strategy, which checks its options itself, has no advice on that."""
    if ":" in (info.data.get("name") or info.data.get("strategy") or ""):  # a class of one's own, which may take text
        return options
    for name, value in options.items():
        if isinstance(value, str) and "," in value and (advice := advice_on(value, "float_type")):
            raise ValueError(f"{name}: {value!r} is no number; {advice}")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_no_text_for_numbers)]  # of a strategy

_NOW_EXECUTION = (
    "activation_checkpointing",
    "checkpoint_every_steps",
    "checkpoints_kept",
    "compile",
    "log_every_steps",
    "micro_batch_sequences",
    "on_save_failure",
)
RENAMED: Mapping[str, str] = {  # old dotted key → new one
    **{f"{section}.{key}": f"execution.{key}" for section in ("training", "base.training") for key in _NOW_EXECUTION},
    "data.malformed_rows": "data.max_malformed_rows",
    "downstream.batch_tokens": "resources.downstream_batch_tokens",
    "evaluation.batch_sequences": "execution.evaluation_micro_batch_sequences",
    "mixture.weights": "mixture.initial_domain_weights",
    "resources.trainings_per_device": "resources.runs_per_device",
}


def _possible_path(path: str) -> str:
    if problem := path_problem(path):
        raise ValueError(f"{shortened(path)} {problem}")
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_possible_path)]  # of a file or folder


class ConfigError(ValueError):
    """Settings that cannot work. The message lists every problem with field, value and fix."""


class Section(BaseModel):
    """Frozen settings that refuse unknown keys and silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
