"""Domain weights in a real `transformers.Trainer`: batches, updates, a kill and a resume, two ranks."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from forked import ForkedRun

from velocitune_core import MixtureBatchSampler, VelocityReweighter

PROJECT = Path(__file__).parents[3]
SIZES = {"cat": 24, "dog": 40, "cow": 16}  # as in trainer_program
STEPS, EVERY = 16, 4
WEIGHTS = {"cat": 0.6, "dog": 0.3, "cow": 0.1}


@dataclass
class Training:
    """What came of one training."""

    folder: Path
    steps: dict[int, list[list[int]]] = field(default_factory=lambda: defaultdict(list))  # micro-batches of all ranks

    def __post_init__(self) -> None:
        for line in (self.folder / "received.jsonl").read_text().splitlines():
            step, _, examples = json.loads(line)
            self.steps[step].append(examples)

    def multiset(self, step: int) -> Counter[int]:
        return Counter(example for micro_batch in self.steps[step] for example in micro_batch)

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())

    @property
    def updates(self) -> list[dict[str, float]]:
        return [
            {k: v for k, v in log.items() if "/" in k or k == "step"}
            for log in self.result["log"]
            if "weight/cat" in log
        ]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("trainings")
    killed_at = random.randrange(4, STEPS)
    path = {"PYTHONPATH": str(PROJECT / "tests/helpers")}
    run = ForkedRun([str(folder), str(killed_at)], 1, path, program="trainer_program")
    _, log = run.communicate(120)
    assert run.returncode == 0, log
    statuses = json.loads((folder / "statuses.json").read_text())
    ranks = {"killed_ranks": [-9, -9], "ranks": [0, 0]}
    others = dict.fromkeys(("whole", "resumed", "refused", "readme", "example", "example_refusals"), 0)
    assert statuses == {"killed": -9, "loop": [0, -9, -9, -9, 0], **ranks, **others}, log
    found: dict[str, Any] = {name: Training(folder / name) for name in ("whole", "resumed", "ranks")}
    refused = json.loads((folder / "refused/messages.json").read_text())
    readme = json.loads((folder / "readme.json").read_text())
    folders = {name: folder / name for name in ("example", "loop_whole", "loop_killed")}
    return found | {"killed_at": killed_at, "refused": refused, "readme": readme, **folders}


@pytest.mark.slow
def test_batches_and_weights_are_those_of_sampler_and_reweighter(trainings: dict[str, Any]) -> None:
    whole = trainings["whole"]
    reweighter = VelocityReweighter(
        WEIGHTS,
        initial_losses=dict.fromkeys(SIZES, 5.0),
        target_losses={"cat": 0.5, "dog": 1.0, "cow": 4.0},
    )
    sampler = MixtureBatchSampler(SIZES, WEIGHTS, 8, 11, steps=EVERY)
    losses: dict[int, dict[str, float]] = defaultdict(dict)
    for log in whole.result["log"]:
        losses[log["step"]] |= {name: log[f"eval_{name}_loss"] for name in SIZES if f"eval_{name}_loss" in log}
    expected = []
    for step in range(0, STEPS, EVERY):
        expected += list(sampler)
        sampler.set_weights(reweighter.update(losses[step + EVERY], step=step + EVERY))
        logged = next(update for update in whole.updates if update["step"] == step + EVERY)
        assert {name: logged[f"weight/{name}"] for name in SIZES} == reweighter.weights
        assert {name: logged[f"velocity/{name}"] for name in SIZES} == reweighter.velocity
    assert [whole.steps[step] for step in range(STEPS)] == [[batch] for batch in expected]
    assert whole.result["weights"] == reweighter.weights != WEIGHTS


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_with_the_same_examples_and_weights(trainings: dict[str, Any]) -> None:
    whole, resumed, killed_at = trainings["whole"], trainings["resumed"], trainings["killed_at"]
    repeated = range(killed_at // 3 * 3, killed_at)  # steps done after the last checkpoint, and done again
    for step in range(STEPS):
        assert resumed.steps[step] == whole.steps[step] * (2 if step in repeated else 1), step
    assert resumed.updates == whole.updates
    assert resumed.result["mean"] == whole.result["mean"]


@pytest.mark.slow
def test_two_ranks_see_the_same_examples_in_every_step_also_after_a_kill(trainings: dict[str, Any]) -> None:
    whole, ranks = trainings["whole"], trainings["ranks"]
    for step in range(STEPS):
        times = len(ranks.steps[step]) // 4  # two micro-batches of each of two ranks
        assert times in (1, 2)
        assert ranks.multiset(step) == Counter({key: times * n for key, n in whole.multiset(step).items()}), step
    assert ranks.result["weights"] == pytest.approx(whole.result["weights"], abs=0.02)  # dropout differs


@pytest.mark.slow
def test_settings_under_which_it_cannot_work_are_refused_in_one_message(trainings: dict[str, Any]) -> None:
    refused = trainings["refused"]
    assert "groups are ['cat', 'dog', 'fox'], those of the reweighter ['cat', 'cow', 'dog']" in refused["groups"]
    assert "max_epochs 1.0 allows 80 examples, and max_steps 16 need 128" in refused["groups"]
    assert "groups ['cow'] need at least one example" in refused["empty group"]
    assert "max_epochs 0.0 must be above 0" in refused["max_epochs"]
    assert (
        "eval_steps 500 must be at most max_steps 16: the first evaluation would come at step 500"
        in (refused["no update"])
    )
    assert "updated 0 times (left out, eval_steps is logging_steps, 500)" in refused["no update"]
    assert "eval_steps 10 and eval_delay 15 must be at most max_steps 16" in refused["delayed"]
    assert refused["last"].startswith("the only evaluation is after the last step")
    assert "call callback.attach(trainer), in place of trainer.add_callback(callback)" in refused["unattached"]
    assert "another VelocityCallback is attached already" in refused["two"]
    for name in ("max_steps", "eval_strategy", "group_by_length", "packing", "split_batches", "auto_find_batch_size"):
        assert name in refused["settings"]
    for name in ("ignore_data_skip", "restore_callback_states_from_checkpoint", "learns from training batches"):
        assert name in refused["settings"]
    assert "it lacks ['cat', 'cow', 'dog']" in refused["data"]
    assert "train_dataset has 80 examples, groups 74" in refused["data"]
    assert "the checkpoint of step 1 has no state of VelocityCallback" in refused["checkpoint"]
    assert "step 15 is of a pass that began at step 12, and eval_steps 5" in refused["eval_steps"]
    assert "the evaluation of 'cat' gave no eval_cat_loss" in refused["no loss"]


@pytest.mark.slow
def test_the_blocks_of_readme_run_as_they_are_written(trainings: dict[str, Any]) -> None:
    loop, trainer = trainings["readme"]["loop"], trainings["readme"]["trainer"]
    assert len(loop["batches"]) == 200
    web = [sum(sum(batch) for batch in loop["batches"][at : at + 20]) / 640 for at in (0, 180)]
    assert web[0] == pytest.approx(0.75, abs=0.01)
    assert web[1] == pytest.approx(loop["weights"]["web"], abs=0.1) != 0.75
    assert [log["step"] for log in trainer["log"] if "weight/web" in log] == list(range(20, 201, 20))
    assert trainer["weights"]["web"] != 0.75


@pytest.mark.slow
def test_the_example_runs_and_goes_on(trainings: dict[str, Any]) -> None:
    folder = trainings["example"] / "out"
    state = json.loads((folder / "checkpoint-8/trainer_state.json").read_text())
    updates = [log for log in state["log_history"] if "weight/counting" in log]
    assert [log["step"] for log in updates] == list(range(1, 9))
    assert (folder / "model.safetensors").exists()


@pytest.mark.slow
def test_the_example_refuses_what_it_cannot_train_on_and_holds_out_of_few_examples(trainings: dict[str, Any]) -> None:
    same, short = json.loads((trainings["example"] / "messages.json").read_text())
    assert "counting.txt have the same name" in same
    assert "short.txt has 70 tokens; give at least 128" in short


@pytest.mark.slow
def test_the_loop_of_the_page_on_ones_own_loop_goes_on_after_each_kill(trainings: dict[str, Any]) -> None:
    def steps(name: str) -> list[list[Any]]:
        return [json.loads(line) for line in (trainings[name] / "steps.jsonl").read_text().splitlines()]

    whole, killed = steps("loop_whole"), steps("loop_killed")
    assert [step for step, *_ in whole] == list(range(1, 201))
    at = {step: line for step, *line in whole}
    # killed in step 37, in the evaluation of step 60, and in step 81, right after an update
    assert [step for step, *_ in killed] == [*range(1, 37), *range(31, 61), *range(61, 81), *range(81, 201)]
    assert all(line == at[step] for step, *line in killed)
    assert (trainings["loop_killed"] / "weights.json").read_text() == (
        trainings["loop_whole"] / "weights.json"
    ).read_text()
    assert len({json.dumps(weights) for _, _, weights in whole}) == 10
