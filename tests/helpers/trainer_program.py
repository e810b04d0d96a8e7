"""Trainings with a real `transformers.Trainer`, each in a process forked from one that has imported it.

Arguments: the folder to write to. What each training gets is recorded in the model's forward pass, so it is what was
trained on, not what was drawn. `received.jsonl` has a line per micro-batch: step, rank, and the examples.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import torch
from forked import _environment_of_ranks
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from velocitune_core import VelocityReweighter
from velocitune_core.integrations.transformers_trainer import VelocityCallback

SIZES = {"cat": 24, "dog": 40, "cow": 16}
STEPS, EVERY, SAVED_EVERY = 16, 4, 3


class Points(Dataset[dict[str, Any]]):
    """Points of groups with centres of their own.

    Args:
        sizes: points by group.
    """

    def __init__(self, sizes: dict[str, int], seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        centre_of = torch.tensor([list(SIZES).index(name) for name in sizes])
        centres = centre_of.repeat_interleave(torch.tensor(list(sizes.values())))
        self._points = torch.randn(len(centres), 4, generator=random) + 2.0 * centres[:, None]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"point": self._points[index], "example": torch.tensor(index)}

    def __len__(self) -> int:
        return len(self._points)


class Mean(nn.Module):
    """A model that learns where the points are."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(4))
        self._file = folder / "received.jsonl"
        self.trainer: Trainer | None = None

    def forward(self, point: Tensor, example: Tensor) -> dict[str, Tensor]:
        if self.training and self.trainer is not None:
            line = [self.trainer.state.global_step, self.trainer.args.process_index, example.tolist()]
            with self._file.open("a", encoding="utf-8") as file:  # one write: lines of two ranks stay whole
                file.write(json.dumps(line) + "\n")
        return {"loss": nn.functional.dropout((point - self.mean) ** 2, 0.1, self.training).mean()}


def train(folder: Path, *, killed_at: int | None = None, **changed: Any) -> None:
    """Train from the last checkpoint in the folder, if there is one."""
    folder.mkdir(exist_ok=True)
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "eval_strategy": "steps",
        "eval_steps": EVERY,
        "save_strategy": "steps",
        "save_steps": SAVED_EVERY,
        "learning_rate": 0.05,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
        "seed": 11,
        "label_names": ["point"],  # Trainer returns losses of evaluations only where there are labels
        "ddp_find_unused_parameters": False,
    }
    model = Mean(folder)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(str(folder), **settings | changed),
        train_dataset=Points(SIZES, 1),
        eval_dataset={name: Points({name: 8}, 2) for name in SIZES},
    )
    reweighter = VelocityReweighter(
        {"cat": 0.6, "dog": 0.3, "cow": 0.1},
        initial_losses=dict.fromkeys(SIZES, 5.0),
        target_losses={"cat": 0.5, "dog": 1.0, "cow": 4.0},
    )
    VelocityCallback(reweighter, SIZES).attach(trainer)
    model.trainer = trainer
    if killed_at is not None:
        step = trainer.training_step

        def until_killed(*arguments: Any, **named: Any) -> Tensor:
            if trainer.state.global_step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **named)

        trainer.training_step = until_killed
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    if trainer.is_world_process_zero():
        result = {"log": trainer.state.log_history, "mean": model.mean.tolist(), "weights": reweighter.weights}
        (folder / "result.json").write_text(json.dumps(result))


def fork(work: Callable[[], None], environment: dict[str, str] | None = None) -> int:
    """Do some work in a process of its own; return its id."""
    child = os.fork()
    if child == 0:
        os.environ.update(environment or {})
        current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # else loaders may start no workers
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, killed_at: int) -> None:
    statuses = {
        "whole": exit_status(fork(lambda: train(folder / "whole"))),
        "killed": exit_status(fork(lambda: train(folder / "resumed", killed_at=killed_at))),
        "resumed": exit_status(fork(lambda: train(folder / "resumed"))),
    }
    two_ranks = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "dataloader_num_workers": 1}
    two_ranks |= {"dataloader_multiprocessing_context": "fork"}
    for name, stop in (("killed_ranks", killed_at), ("ranks", None)):
        ranks = [
            fork(lambda: train(folder / "ranks", killed_at=stop, **two_ranks), each)
            for each in _environment_of_ranks(2)
        ]
        statuses[name] = [exit_status(each) for each in ranks]
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
