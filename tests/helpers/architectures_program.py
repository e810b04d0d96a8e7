"""Train every architecture for some steps on the ranks of one run, and write what came of it as JSON.

Arguments: a folder of model folders, and one to write to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import LENGTH, VOCABULARY, rows

from velocitune_core.checkpoint.store import load_checkpoint, save_checkpoint
from velocitune_core.config import Execution, Training
from velocitune_core.parallel.ranks import Ranks, join_ranks, leave_ranks
from velocitune_core.train.learner import Learner

BATCH, STEPS, SAVED_AFTER, RATE = 8, 2, 1, 1e-3
HELD_OUT = {"code": rows("code held out", 5)}


def batch(number: int) -> np.ndarray:
    """Token ids (BATCH, LENGTH), another batch for every number."""
    return np.random.default_rng(number).permutation(rows("code", 60))[:BATCH].astype(np.int64)


def learner_of(folder: Path, precision: str, ranks: Ranks) -> Learner:
    """Two micro-batches of each of two ranks, or four of one."""
    settings = {"batch_sequences": BATCH, "optimizer": {"learning_rate": RATE}, "precision": precision}
    return Learner(str(folder), Training.model_validate(settings), Execution(micro_batch_sequences=2), ranks)


def train(learner: Learner, steps: range, ranks: Ranks) -> list[float]:
    """Return loss and gradient norm of every step."""
    figures = []
    for step in steps:
        ours = torch.from_numpy(batch(step)[ranks.rank :: ranks.world_size])
        found = learner.gradients(ours, np.zeros(len(ours), dtype=np.int64), 1)
        learner.apply(RATE)
        figures += [found.loss, found.gradient_norm]
    return figures


def evaluated_with_logits(learner: Learner, ranks: Ranks) -> tuple[float, torch.Tensor]:
    """The held-out loss, and the logits that it is made of: of this rank's rows, (own rows, LENGTH − 1, VOCABULARY)."""
    products: list[torch.Tensor] = []
    head: Any = learner._loss._head  # its scale and cap, which the loss applies after the output matrix
    matrix = learner._model.get_output_embeddings()
    hook = matrix.register_forward_hook(lambda module, given, output: products.append(output.detach().float()))
    loss = learner.evaluate(HELD_OUT, 4)["code"]
    hook.remove()
    own = len(HELD_OUT["code"][ranks.rank :: ranks.world_size])
    return loss, head.logits(torch.cat(products)).view(-1, LENGTH - 1, VOCABULARY)[:own]


def life(folder: Path, output: Path, precision: str, ranks: Ranks) -> dict[str, Any]:
    learner = learner_of(folder, precision, ranks)
    found: dict[str, Any] = {"untrained": learner.evaluate(HELD_OUT, 4)["code"]}
    begun = train(learner, range(SAVED_AFTER), ranks)
    checkpoint = save_checkpoint(output / "checkpoints", SAVED_AFTER, learner.state(), {}, keep=1, ranks=ranks)
    found["curve"] = begun + train(learner, range(SAVED_AFTER, STEPS), ranks)
    found["trained"], logits = evaluated_with_logits(learner, ranks)
    learner.save(output / "model")
    if ranks.is_main:
        np.save(output / "logits.npy", logits.numpy())
    resumed = learner_of(folder, precision, ranks)
    resumed.load_state(load_checkpoint(checkpoint, ranks))
    found["resumed curve"] = begun + train(resumed, range(SAVED_AFTER, STEPS), ranks)
    return found


def main(models: Path, output: Path) -> None:
    ranks = join_ranks()
    for folder in sorted(models.iterdir()):
        for precision in ("float32", "bfloat16"):
            target = output / f"{folder.name}-{precision}"
            found = life(folder, target, precision, ranks)
            if ranks.is_main:
                (target / "found.json").write_text(json.dumps(found))
    leave_ranks()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
