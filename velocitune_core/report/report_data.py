"""The results of a pipeline, that its report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from velocitune_core.contracts import (
    Comparison,
    ContractError,
    InitialLosses,
    Manifest,
    ProxyResult,
    StartingWeights,
    Targets,
    TrainResult,
)


@dataclass(frozen=True)
class ReportData:
    """The results that a report is made from. Raises ContractError where they have different domains."""

    manifest: Manifest
    initial: InitialLosses
    proxies: tuple[ProxyResult, ...]
    targets: Targets
    train: TrainResult
    initial_domain_weights: Mapping[str, float]  # w_0
    config: str  # YAML text
    weights: StartingWeights | None = None  # that the training started from; None: not known
    base: TrainResult | None = None  # run that made the base model, if the pipeline did
    comparison: Comparison | None = None  # that is there, of whatever runs
    extras: Mapping[str, str] = field(default_factory=dict)  # shown with the configuration, e.g. versions

    def __post_init__(self) -> None:
        parts = {
            "initial losses": self.initial.losses,
            "targets": self.targets.domains,
            "training run": self.train.final,
            "initial domain weights": self.initial_domain_weights,
            **{f"proxy {proxy.name}": proxy.final.losses for proxy in self.proxies},
        }
        wanted = set(self.manifest.domains)
        problems = [
            f"  {part}: missing {sorted(wanted - set(names))}, unknown {sorted(set(names) - wanted)}"
            for part, names in parts.items()
            if set(names) != wanted
        ]
        if problems:
            lines = "\n".join(problems)
            raise ContractError(
                f"results and manifest have different domains; rerun the stages of these results:\n{lines}"
            )
