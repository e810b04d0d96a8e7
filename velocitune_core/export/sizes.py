"""How much text each domain has: as a manifest counts it, or as somebody whose data never was in a pipeline does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from velocitune_core.config import describe_problems, parse_yaml
from velocitune_core.config.misread import as_yaml
from velocitune_core.contracts import Manifest
from velocitune_core.contracts.contract import Part
from velocitune_core.export.mixture import DomainSize, ExportError

EXAMPLE = "domains: {code: {tokens: 3.0e+9, documents: 2000000}}"


@dataclass(frozen=True)
class DataSizes:
    """The training text of a mixture's domains."""

    domains: Mapping[str, DomainSize]
    sequence_length: int | None = None  # tokens of a sequence of the other trainer; None: not known


class _Domain(Part):
    tokens: int = Field(gt=0)
    documents: int | None = Field(default=None, gt=0)


def _not_alone(given: Any) -> Any:
    """Refuse a number without its unit."""
    if isinstance(given, int | float):
        raise ValueError(f"{given!r}: of tokens, or of documents? Write {{tokens: {as_yaml(float(given))}}}")
    return given


class _Counted(Part):
    """A file of a user's own counts."""

    domains: dict[str, Annotated[_Domain, BeforeValidator(_not_alone)]] = Field(min_length=1)
    sequence_length: int | None = Field(default=None, gt=0)


def sizes_of(manifest: Manifest) -> DataSizes:
    """Return the training text of each domain of a manifest."""
    domains = {name: DomainSize(each.train.tokens, each.train.documents) for name, each in manifest.domains.items()}
    return DataSizes(domains, manifest.sequence_length)


def read_counts(path: Path) -> DataSizes | None:
    """Return the sizes in a file of a user's own counts (YAML or JSON); None if it is a manifest of the pipeline.

    Raises ExportError for a file that is missing or holds no counts, ConfigError for one that is no YAML.
    """
    try:
        tree = parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise ExportError(f"manifest: {path}: cannot be read: {error.strerror}; give the file of the data") from None
    if isinstance(tree, dict) and "tokenizer_sha256" in tree:
        return None
    try:
        found = _Counted.model_validate(tree)
    except ValidationError as error:
        raise ExportError(
            f"manifest: {path}: neither a manifest of the pipeline nor counts such as {EXAMPLE}:\n"
            f"{describe_problems(error, renamed={}, of=_Counted)}"
        ) from None
    domains = {name: DomainSize(each.tokens, each.documents) for name, each in found.domains.items()}
    return DataSizes(domains, found.sequence_length)
