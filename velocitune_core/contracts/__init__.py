"""The files that one stage writes and the next reads: small JSON files, each with a schema version.

All losses are held-out losses in nats per token.
"""

from velocitune_core.contracts.comparison_result import ComparedRun, Comparison
from velocitune_core.contracts.contract import Contract, ContractError, Part
from velocitune_core.contracts.downstream_result import DownstreamResult, DownstreamScores, DownstreamTask
from velocitune_core.contracts.evaluation_result import EvaluationResult, MeasuredSet
from velocitune_core.contracts.initial_losses import InitialLosses
from velocitune_core.contracts.losses import Losses, LossPoint
from velocitune_core.contracts.manifest import Border, DocumentBorders, DomainFiles, DomainManifest, Manifest, Split
from velocitune_core.contracts.overfitting import Overfitting, overfitted_domains
from velocitune_core.contracts.proxy_result import ProxyResult
from velocitune_core.contracts.questions import Question, Questions, TaskQuestions
from velocitune_core.contracts.starting_weights import (
    Planned,
    StartingWeights,
    Steering,
    SwarmRound,
    SwarmRun,
    WeightsRun,
    Worth,
)
from velocitune_core.contracts.target_losses import DomainTarget, Evidence, Flag, Law, OtherLaw, Targets
from velocitune_core.contracts.train_result import SettingsThen, Timings, TrainResult, WeightPoint

__all__ = [
    "Border",
    "ComparedRun",
    "Comparison",
    "Contract",
    "ContractError",
    "DocumentBorders",
    "DomainFiles",
    "DomainManifest",
    "DomainTarget",
    "DownstreamResult",
    "DownstreamScores",
    "DownstreamTask",
    "EvaluationResult",
    "Evidence",
    "Flag",
    "InitialLosses",
    "Law",
    "LossPoint",
    "Losses",
    "Manifest",
    "MeasuredSet",
    "OtherLaw",
    "Overfitting",
    "Part",
    "Planned",
    "ProxyResult",
    "Question",
    "Questions",
    "SettingsThen",
    "Split",
    "StartingWeights",
    "Steering",
    "SwarmRound",
    "SwarmRun",
    "Targets",
    "TaskQuestions",
    "Timings",
    "TrainResult",
    "WeightPoint",
    "WeightsRun",
    "Worth",
    "overfitted_domains",
]
