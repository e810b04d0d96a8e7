"""What two ranks make of one model, written as JSON by the main one.

Arguments: the model's folder on each rank's disk, and a folder to write to.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import rows
from torch.utils._python_dispatch import TorchDispatchMode

from velocitune_core.config import Execution, Training
from velocitune_core.model.folder import ModelError
from velocitune_core.parallel import ranks as parallel
from velocitune_core.parallel.fsdp import gathered
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train.learner import Learner

BATCH, MICRO_BATCHES = 8, 4  # of each of two ranks: one sequence each
TOO_LARGE = 1e5  # for float16
EVERY = np.zeros(BATCH // 2, dtype=np.int64)


def learner_of(folder: str, gather: str, precision: str, ranks: Ranks, reference: str | None = None) -> Learner:
    settings = {
        "batch_sequences": BATCH,
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.0},
        "precision": precision,
    }
    execution = Execution.model_validate({"micro_batch_sequences": 1, "gather": gather})
    return Learner(folder, Training.model_validate(settings), execution, ranks, reference)


class Collectives(TorchDispatchMode):
    """Counts calls of each collective. (torch's CommDebugMode fails at the second backward pass of a step.)"""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function.namespace == "c10d":
            self.counts[str(function.overloadpacket).rpartition(".")[2]] += 1
        return function(*arguments, **(named or {}))


def steps(folder: str, gather: str, precision: str, ranks: Ranks) -> dict[str, Any]:
    """Two steps with an evaluation between them: figures, collectives of a step, and the gradients of the second."""
    learner = learner_of(folder, gather, precision, ranks)
    batch = torch.from_numpy(rows("code", BATCH).astype(np.int64))[ranks.rank :: 2]
    losses = [learner.gradients(batch, EVERY, 1).loss]
    learner.apply(1e-2)
    held_out = learner.evaluate({"code": rows("code held out", 5)}, 4)["code"]
    with Collectives() as collectives:
        second = learner.gradients(batch, EVERY, 1)
    parameters = dict(learner._model.named_parameters())
    gradients = gathered({name: each.grad for name, each in parameters.items() if each.grad is not None}, ranks)
    return {
        "losses": [*losses, second.loss, held_out],
        "traffic": collectives.counts,
        "gradients": {name: each.flatten().tolist() for name, each in gradients.items()},
    }


def main(folders: list[str], output: Path) -> None:
    ranks = parallel.join_ranks()
    folder = folders[ranks.rank]
    found: dict[str, Any] = {
        f"{gather} {precision}": steps(folder, gather, precision, ranks)
        for precision in ("float32", "bfloat16")
        for gather in ("layer", "step", "auto")
    }
    batch = torch.from_numpy(rows("code", BATCH).astype(np.int64))[ranks.rank :: 2]
    excess = learner_of(folder, "auto", "float32", ranks, reference=folder).gradients(batch, EVERY, 1).domain_excess
    assert excess is not None
    found["excess over itself"] = excess.tolist()
    learner = learner_of(folder, "auto", "float32", ranks)
    learner.save(output / "saved", "bfloat16")
    held = [name for name, each in gathered(learner.state(), ranks).items() if name.startswith("model.")]
    (output / f"held-by-{ranks.rank}.json").write_text(json.dumps(held))
    with torch.no_grad():
        learner._model.model.norm.weight.fill_(TOO_LARGE)
    found["warnings of float16"] = learner.save(output / "too-large", "float16")
    try:
        learner_of(folders[1], "auto", "float32", ranks)  # without weights, which the main rank alone misses
    except ModelError as error:
        (output / f"error-of-{ranks.rank}.txt").write_text(str(error))
    if ranks.is_main:
        (output / "found.json").write_text(json.dumps(found))
    parallel.leave_ranks()


if __name__ == "__main__":
    *folders, output = sys.argv[1:]
    main(folders, Path(output))
