"""Train every architecture for some steps on the ranks of one run, and write what came of it as JSON.

Logits are made in chunks, of which every micro-batch has several. Arguments: a folder of model folders, and one to
write to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import LENGTH, VOCABULARY, rows

from velocitune_core.checkpoint.store import load_checkpoint, save_checkpoint
from velocitune_core.config import Execution, Training
from velocitune_core.parallel.ranks import Ranks, join_ranks, leave_ranks
from velocitune_core.train import placement
from velocitune_core.train.learner import Learner

LOGITS_AT_ONCE = 10 * VOCABULARY  # of the 30 predictions of a micro-batch
BATCH, STEPS, SAVED_AFTER, RATE = 8, 2, 1, 1e-3
HELD_OUT = {"code": rows("code held out", 5)}
START = 0  # token at which documents begin
DOCUMENTS = [(4, 5, LENGTH - 9), (7, LENGTH - 7)] * (BATCH // 2)  # lengths of those in each row
PACKED = rows("code", BATCH).astype(np.int64) % (VOCABULARY - 1) + 1
for row, lengths in zip(PACKED, DOCUMENTS, strict=True):
    row[np.cumsum([0, *lengths[:-1]])] = START
NOT_MASKED = "opt"  # its attention cannot be kept inside documents


def batch(number: int) -> np.ndarray:
    """Token ids (BATCH, LENGTH), another batch for every number."""
    return np.random.default_rng(number).permutation(rows("code", 60))[:BATCH].astype(np.int64)


def learner_of(folder: Path, precision: str, ranks: Ranks, document_start: int | None = None) -> Learner:
    """Two micro-batches of each of two ranks, or four of one."""
    settings = {"batch_sequences": BATCH, "optimizer": {"learning_rate": RATE}, "precision": precision}
    execution = Execution(micro_batch_sequences=2)
    return Learner(str(folder), Training.model_validate(settings), execution, ranks, document_start=document_start)


def train(learner: Learner, steps: range, ranks: Ranks) -> list[float]:
    """Return loss and gradient norm of every step."""
    figures = []
    for step in steps:
        ours = torch.from_numpy(batch(step)[ranks.rank :: ranks.world_size])
        found = learner.gradients(ours, np.zeros(len(ours), dtype=np.int64), 1)
        learner.apply(RATE)
        figures += [found.loss, found.gradient_norm]
    return figures


@contextmanager
def products_of(learner: Learner) -> Iterator[list[torch.Tensor]]:
    """Yield a list that gets what the output matrix gives in each of its calls."""
    found: list[torch.Tensor] = []
    matrix = learner._model.get_output_embeddings()
    hook = matrix.register_forward_hook(lambda module, given, output: found.append(output.detach().float()))
    yield found
    hook.remove()


def evaluated_with_logits(learner: Learner, ranks: Ranks) -> tuple[float, torch.Tensor]:
    """The held-out loss, and the logits that it is made of: of this rank's rows, (own rows, LENGTH − 1, VOCABULARY)."""
    head: Any = learner._loss._head  # its scale and cap, which the loss applies after the output matrix
    with products_of(learner) as products:
        loss = learner.evaluate(HELD_OUT, 4)["code"]
    own = len(HELD_OUT["code"][ranks.rank :: ranks.world_size])
    return loss, head.logits(torch.cat(products)).view(-1, LENGTH - 1, VOCABULARY)[:own]


def life(folder: Path, output: Path, precision: str, ranks: Ranks) -> dict[str, Any]:
    learner = learner_of(folder, precision, ranks)
    found: dict[str, Any] = {"untrained": learner.evaluate(HELD_OUT, 4)["code"]}
    with products_of(learner) as products:
        begun = train(learner, range(SAVED_AFTER), ranks)
    found["logits at once"] = sorted({each.numel() for each in products})
    checkpoint = save_checkpoint(output / "checkpoints", SAVED_AFTER, learner.state(), {}, keep=1, ranks=ranks)
    found["curve"] = begun + train(learner, range(SAVED_AFTER, STEPS), ranks)
    found["trained"], logits = evaluated_with_logits(learner, ranks)
    learner.save(output / "model")
    if ranks.is_main:
        np.save(output / "logits.npy", logits.numpy())
    resumed = learner_of(folder, precision, ranks)
    resumed.load_state(load_checkpoint(checkpoint, ranks))
    found["resumed curve"] = begun + train(resumed, range(SAVED_AFTER, STEPS), ranks)
    if folder.name != NOT_MASKED:
        found["inside documents"] = inside_documents(learner_of(folder, precision, ranks, START), ranks)
    return found


def inside_documents(learner: Learner, ranks: Ranks) -> list[list[float]]:
    """The loss of each packed row, as held-out text and as part of a batch."""
    own = np.arange(BATCH)[ranks.rank :: ranks.world_size]
    held_out = learner.evaluate({str(number): row[None] for number, row in enumerate(PACKED)}, 4)
    return [
        list(held_out.values()),
        learner.gradients(torch.from_numpy(PACKED[own]), own, BATCH).domain_losses.tolist(),
    ]


def main(models: Path, output: Path) -> None:
    placement.LOGITS_AT_ONCE = LOGITS_AT_ONCE
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
