"""Read an objective from a YAML file: the fields of `Objective`, by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from velocitune_core.config.yaml_text import parse_yaml
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.table import ROUNDING
from velocitune_core.spelling import nearest

KNOWN = tuple(field.name for field in fields(Objective))
OF_PARAMS = {"initial_domain_weights": "initial_weights"}  # as params.yaml calls it


def read_objective(path: Path | None) -> Objective:
    """Return the objective of a file; the macro-average without guards if there is none.

    Raises ObjectiveError for a file that is missing or no mapping, and for fields that do not exist; ConfigError for
    text that is no YAML. Values are checked when it meets a law.
    """
    if path is None:
        return Objective()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ObjectiveError(f"{path}: cannot be read: {error.strerror}") from None
    tree = parse_yaml(content, str(path))
    if tree is None:
        return Objective()
    if not isinstance(tree, dict):
        raise ObjectiveError(
            f"{path}: holds a {type(tree).__name__}; give fields of an objective, such as average: macro"
        )
    if unknown := [name for name in tree if name not in KNOWN]:
        raise ObjectiveError("\n".join(f"{path}: {_advice(name)}" for name in unknown))
    return Objective(**{name: value for name, value in tree.items() if value is not None})


def objective_notes(objective: Objective) -> list[str]:
    """Return what is changed of an objective: initial weights that do not sum to 1 within rounding."""
    weights = objective.initial_weights or {}
    total = sum(weights.values())
    if not weights or abs(total - 1) <= ROUNDING * len(weights) + 1e-9:
        return []
    return [f"objective.initial_weights sum to {total:.4g}, not to 1: normalised"]


def _advice(name: str) -> str:
    meant = OF_PARAMS.get(name) or nearest(name, KNOWN)
    known = f"fields are {', '.join(KNOWN)}"
    return f"unknown field {name!r}; {f'did you mean {meant}?' if meant else known}"
