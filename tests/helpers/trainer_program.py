"""Trainings with a real `transformers.Trainer`, each in a process forked from one that has imported it.

Arguments: the folder to write to. What each training gets is recorded in the model's forward pass, so it is what was
trained on, not what was drawn. `received.jsonl` has a line per micro-batch: step, rank, and the examples.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import torch
from forked import _environment_of_ranks
from loop_of_docs import loop_that_resumes
from torch import Tensor, nn
from torch.utils.data import Dataset
from trainer_example import example, example_refusals
from transformers import Trainer, TrainingArguments, default_data_collator

from velocitune_core import VelocityReweighter
from velocitune_core.integrations.transformers_trainer import TrainerSettingsError, VelocityCallback

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


@dataclass
class PackingArguments(TrainingArguments):
    """As of a trainer that can pack."""

    packing: bool = False


def trainer_of(folder: Path, **changed: Any) -> Trainer:
    """A Trainer of the points, without the callback."""
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": STEPS,
        "eval_strategy": "steps",
        "eval_steps": EVERY,
        "eval_on_start": True,  # after a resume at the end of a pass, too, where the weights are updated already
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
    folder.mkdir(exist_ok=True)
    model = Mean(folder)
    model.trainer = Trainer(
        model=model,
        args=PackingArguments(str(folder), **settings | changed),
        train_dataset=Points(SIZES, 1),
        eval_dataset={name: Points({name: 8}, 2) for name in SIZES},
    )
    return model.trainer


def callback(strategy: str = "velocitune", sizes: dict[str, int] | None = None, **options: Any) -> VelocityCallback:
    reweighter = VelocityReweighter(
        {"cat": 0.6, "dog": 0.3, "cow": 0.1},
        strategy=strategy,
        initial_losses=dict.fromkeys(SIZES, 5.0),
        target_losses={"cat": 0.5, "dog": 1.0, "cow": 4.0},
    )
    return VelocityCallback(reweighter, sizes or SIZES, **options)


def train(folder: Path, *, killed_at: int | None = None, **changed: Any) -> None:
    """Train from the last checkpoint in the folder, if there is one."""
    trainer = trainer_of(folder, **changed)
    (attached := callback()).attach(trainer)
    if killed_at is not None:
        step = trainer.training_step

        def until_killed(*arguments: Any, **named: Any) -> Tensor:
            if trainer.state.global_step == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **named)

        trainer.training_step = until_killed
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    if trainer.is_world_process_zero():
        model: Any = trainer.model
        result = {"log": trainer.state.log_history, "mean": model.mean.tolist()}
        (folder / "result.json").write_text(json.dumps(result | {"weights": attached.reweighter.weights}))


@contextmanager
def logged() -> Iterator[list[str]]:
    """Yield what the callback logs."""
    lines: list[str] = []
    (handler := logging.Handler()).emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    (logger := logging.getLogger(VelocityCallback.__module__)).addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def refused(folder: Path) -> None:
    """Write the messages for settings that cannot work."""
    messages = {}

    def attempt(name: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except (TrainerSettingsError, ValueError) as error:
            messages[name] = f"{type(error).__name__}: {error}"

    wrong = {
        "max_steps": -1,
        "eval_strategy": "epoch",
        "train_sampling_strategy": "group_by_length",
        "packing": True,
        "accelerator_config": {"split_batches": True},
        "auto_find_batch_size": True,
        "ignore_data_skip": True,
        "restore_callback_states_from_checkpoint": True,
    }
    attempt("settings", lambda: callback("odm").attach(trainer_of(folder, **wrong)))
    bare = trainer_of(folder)
    bare.eval_dataset = bare.eval_dataset["cat"]  # type: ignore[index]
    attempt("data", lambda: callback(sizes={**SIZES, "cow": 10}).attach(bare))
    attempt(
        "groups", lambda: callback(sizes={"cat": 24, "dog": 40, "fox": 16}, max_epochs=1).attach(trainer_of(folder))
    )
    attempt("empty group", lambda: callback(sizes={**SIZES, "cow": 0}).attach(trainer_of(folder)))
    attempt("max_epochs", lambda: callback(max_epochs=0))
    short = {"eval_steps": None, "logging_steps": 500}
    attempt("no update", lambda: callback().attach(trainer_of(folder, **short)))
    attempt("delayed", lambda: callback().attach(trainer_of(folder, eval_delay=15, eval_steps=10)))
    with logged() as lines:
        callback().attach(trainer_of(folder, eval_steps=STEPS))
    messages["last"] = "".join(lines)
    (unattached := trainer_of(folder)).add_callback(callback())
    attempt("unattached", unattached.train)
    attempt("two", lambda: callback().attach(unattached))
    (added := trainer_of(folder)).add_callback(both := callback())
    both.attach(added)
    assert added.callback_handler.callbacks.count(both) == 1
    trainer_of(folder, max_steps=1, save_steps=1).train()
    attempt("checkpoint", lambda: callback().attach(trainer_of(folder)).train(resume_from_checkpoint=True))
    attempt("no loss", lambda: callback().attach(trainer_of(folder, label_names=["none"])).train())
    other = trainer_of(folder, eval_steps=5)
    last = str(folder.parent / "whole/checkpoint-15")
    attempt("eval_steps", lambda: callback().attach(other).train(resume_from_checkpoint=last))
    (folder / "messages.json").write_text(json.dumps(messages))


class Classifier(nn.Module):
    """A linear model that returns its loss, as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, point: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(self.layer(point), labels)}


def readme(folder: Path) -> None:
    """Execute the blocks of README's "In your own loop" as they are written, with the names that it calls yours."""
    section = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").partition("## In your own loop")[2]
    loop, with_trainer = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    groups = {"code": 60, "web": 100}
    centres = torch.arange(2).repeat_interleave(torch.tensor(list(groups.values())))
    points = torch.randn(160, 4, generator=torch.Generator().manual_seed(0)) + centres[:, None]
    data = [{"point": point, "labels": centre} for point, centre in zip(points, centres, strict=True)]
    yours: dict[str, Any] = {"data": data, "train": data, "held_out": {"code": data[:20], "web": data[-20:]}}
    yours["labels"] = [list(groups)[centre] for centre in centres]
    yours["targets"] = {"code": 0.3, "web": 0.2}
    batches = []

    def train_step(model: Classifier, batch: dict[str, Tensor]) -> None:
        batches.append(batch["labels"].tolist())
        model.zero_grad()
        model(**batch)["loss"].backward()
        for parameter in model.parameters():
            parameter.data -= 0.05 * parameter.grad  # type: ignore[operator]

    def evaluate(model: Classifier) -> dict[str, float]:
        sets = {name: default_data_collator(rows) for name, rows in yours["held_out"].items()}
        return {name: model(**rows)["loss"].item() for name, rows in sets.items()}

    os.chdir(folder)
    yours |= {"model": Classifier(), "train_step": train_step, "evaluate": evaluate}
    exec(loop, yours)
    first = {"batches": batches, "weights": yours["reweighter"].weights}
    yours["model"] = Classifier()
    exec(with_trainer, yours)
    second = {"log": yours["trainer"].state.log_history, "weights": yours["reweighter"].weights}
    Path("readme.json").write_text(json.dumps({"loop": first, "trainer": second}))


def loop(folder: Path) -> list[int]:
    """Run the loop of docs/OWN_LOOP.md to its end, and another one that is killed three times; return the statuses."""
    kills = [{"killed_at": 37}, {"killed_in_evaluation": 60}, {"killed_at": 81}, {}]
    works = [partial(loop_that_resumes, folder / "loop_whole")]
    works += [partial(loop_that_resumes, folder / "loop_killed", **each) for each in kills]
    return [exit_status(fork(work)) for work in works]


def fork(work: Callable[[], None], environment: dict[str, str] | None = None) -> int:
    """Do some work in a process of its own; return its id."""
    child = os.fork()
    if child == 0:
        os.environ.update(environment or {})
        current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # else loaders may start no workers
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def two_ranks(folder: Path, **changed: Any) -> list[int]:
    """Train in two ranks, of two micro-batches each; return their exit statuses."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **changed}
    ranks = [fork(lambda: train(folder, **settings), each) for each in _environment_of_ranks(2)]
    return [exit_status(each) for each in ranks]


def main(folder: Path, killed_at: int) -> None:
    (folder / "example").mkdir()
    statuses: dict[str, Any] = {
        "whole": exit_status(fork(lambda: train(folder / "whole"))),
        "killed": exit_status(fork(lambda: train(folder / "resumed", killed_at=killed_at))),
        "resumed": exit_status(fork(lambda: train(folder / "resumed"))),
        "refused": exit_status(fork(lambda: refused(folder / "refused"))),
        "readme": exit_status(fork(lambda: readme(folder))),
        "example": exit_status(fork(lambda: example(folder / "example"))),
        "example_refusals": exit_status(fork(lambda: example_refusals(folder / "example"))),
        "loop": loop(folder),
    }
    statuses["killed_ranks"] = two_ranks(folder / "ranks", killed_at=EVERY * SAVED_EVERY + 1)
    workers = {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "fork"}
    statuses["ranks"] = two_ranks(folder / "ranks", **workers)
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
