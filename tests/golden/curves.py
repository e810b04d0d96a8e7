"""Loss curves of the engine's paths: which runs they are of, how they are read off a run, how close they must be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import job
from trainings import ALONE, TOGETHER, train

from velocitune_core.train import events

FOLDER = Path(__file__).parent / "curves"
STEPS = 20
MICRO_BATCH, ACTIVATION_CHECKPOINTING = "execution__micro_batch_sequences", "execution__activation_checkpointing"
IN_FLOAT32, IN_BFLOAT16 = {"training__precision": "float32"}, {"training__precision": "bfloat16"}


@dataclass(frozen=True)
class EnginePath:
    """A way through the engine: 20 steps of the tiny job, 6 sequences each, domain weights updated every 5.

    `tolerance` is relative and holds for every number of the curve, on any CPU. Measured: without AVX2 (see
    `regenerate.py`) no float32 number moves by more than 6.3e-7. In bfloat16 an activation that lies between two of its
    numbers, 0.4 % apart, may be rounded the other way, and 20 steps later losses have moved by 2.8e-4, gradient norms
    by 1.7e-3.
    """

    ranks: int = ALONE
    settings: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


ENGINE_PATHS = {
    "one-rank-float32": EnginePath(settings={**IN_FLOAT32, MICRO_BATCH: 6}),
    "one-rank-bfloat16": EnginePath(settings={**IN_BFLOAT16, MICRO_BATCH: 6}, tolerance=5e-3),
    "two-ranks-float32": EnginePath(TOGETHER, {**IN_FLOAT32, MICRO_BATCH: 3}),
    "two-ranks-bfloat16": EnginePath(TOGETHER, {**IN_BFLOAT16, MICRO_BATCH: 3}, tolerance=5e-3),
    "accumulation": EnginePath(settings={**IN_FLOAT32, MICRO_BATCH: 2}),
    "activation-checkpointing": EnginePath(settings={**IN_FLOAT32, MICRO_BATCH: 6, ACTIVATION_CHECKPOINTING: True}),
}


def curve_of(path: EnginePath, inputs: Path, output: Path) -> dict[str, Any]:
    """Train along `path`; return the numbers of each step, evaluation and update of the domain weights."""
    run = train(job(inputs, output, total_steps=STEPS, save_model=False, **path.settings), path.ranks)
    if run.returncode:
        raise RuntimeError(run.stderr)
    curve: dict[str, Any] = {"loss": {}, "gradient_norm": {}, "held_out_loss": {}, "domain_weights": {}}
    for event in run.events:
        if isinstance(event, events.Stepped):
            curve["loss"][str(event.step)] = event.loss
            curve["gradient_norm"][str(event.step)] = event.gradient_norm
        elif isinstance(event, events.Evaluated):
            curve["held_out_loss"][str(event.step)] = event.losses
        elif isinstance(event, events.Reweighted):
            curve["domain_weights"][str(event.step)] = event.weights
    return curve


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


def read_curve(name: str) -> dict[str, Any]:
    return json.loads(file_of(name).read_text(encoding="utf-8"))


def write_curve(name: str, curve: dict[str, Any]) -> None:
    """Seven digits, so that a diff shows what moved and not the last bits of a float."""
    FOLDER.mkdir(exist_ok=True)
    file_of(name).write_text(json.dumps(_rounded(curve), indent=1) + "\n", encoding="utf-8")


def worst_difference(ours: Any, theirs: Any) -> float:
    """Return the largest relative difference of two curves, infinite where one has a number that the other lacks."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.keys() != theirs.keys():
            return float("inf")
        return max((worst_difference(ours[key], theirs[key]) for key in ours), default=0.0)
    return abs(ours - theirs) / abs(theirs)


def _rounded(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return float(f"{tree:.7g}")
