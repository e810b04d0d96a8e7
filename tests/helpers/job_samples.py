"""A manifest, initial losses and targets of two domains, from which jobs are built."""

from __future__ import annotations

from typing import Any

from velocitune_core.config import (
    Params,
    Training,
    parse_params,
)
from velocitune_core.contracts import (
    DomainManifest,
    DomainTarget,
    InitialLosses,
    Manifest,
    Split,
    Targets,
)

SIZES = {"law": 240, "code": 400}  # sequences, in an order that is not the one of the settings

LENGTH, BATCH = 64, 16


def changed(params: Params, **sections: dict[str, Any]) -> Params:
    """The settings with some keys of some sections changed."""
    tree = params.model_dump()
    for section, values in sections.items():
        tree[section] = {**(tree[section] or {}), **values}
    return parse_params(tree)


def domain(name: str, sequences: int) -> DomainManifest:
    def split(kind: str, count: int) -> Split:
        file, digest = f"{name}/{kind}.npy", f"{name} {kind}"
        return Split(file=file, documents=9, sequences=count, tokens=count * LENGTH, sha256=digest)

    return DomainManifest(
        train=split("train", sequences), held_out=split("held_out", 8), documents_read=20, duplicates=1, too_short=1
    )


MANIFEST = Manifest(
    sequence_length=LENGTH,
    vocabulary_size=512,
    tokenizer_sha256="0",
    domains={name: domain(name, sequences) for name, sequences in SIZES.items()},
)

INITIAL = InitialLosses(
    precision="float32", losses={"law": 4.0, "code": 5.0}, tokens={"law": 1, "code": 1}, seconds=1.0
)

TARGETS = Targets(domains={"code": DomainTarget(target=3.0), "law": DomainTarget(target=2.0)})


def training(**changes: Any) -> Training:
    return Training.model_validate({"optimizer": {"learning_rate": 1e-3}, "batch_sequences": BATCH, **changes})
