"""Evaluations by the training program: the same values on any number of ranks, none of them measured twice."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluations import UNEVEN, ended, evaluate, evaluation, sharp_model, start, write_questions, write_sets
from safetensors.torch import load_file, save_file
from tiny import llama
from trainings import wait_for

from velocitune_core.contracts import EvaluationResult
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.model.io import load_model
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.evaluator import Evaluator
from velocitune_core.train.events import Evaluated, EvaluationStarted, Event, Finished, Measured, read_events
from velocitune_core.train.stop import REFUSED, STOPPED, Interrupted

MANY = {"code": 200, "law": 2, "papers": 199}  # two sequences per pass: time to be stopped in the middle
TASKS = {"sums": [1, 2, 3, 9], "loops": [4], "proofs": [1, 5, 2, 6, 3, 3, 1]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path) -> Path:
    return sharp_model(tmp_path_factory.mktemp("sharp") / "model", tiny_inputs)


def events(tree: dict[str, Any]) -> list[Event]:
    return list(read_events(Path(tree["output"]) / "events.jsonl"))


def nats(result: EvaluationResult) -> dict[str, float]:
    return {name: each.nats for name, each in result.sets.items()}


def test_losses_are_those_of_the_model_on_every_token(model: Path, tmp_path: Path) -> None:
    held_out = write_sets(tmp_path / "sets", UNEVEN)
    tree = evaluation(model, tmp_path / "run", held_out=held_out)
    result = evaluate(tree)
    for name, file in held_out.items():
        rows = torch.from_numpy(np.load(file["path"]).astype(np.int64))
        with torch.no_grad():
            logits = load_model(str(model))(rows[:, :-1]).logits.double()
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        assert result.sets[name].loss == pytest.approx(expected.item(), abs=1e-5)
        assert (result.sets[name].sequences, result.sets[name].tokens) == (UNEVEN[name], rows[:, 1:].numel())
    assert result.parameters == sum(each.numel() for each in llama().parameters())
    logged = events(tree)
    assert [type(event) for event in logged] == [EvaluationStarted, *[Measured] * 7, Evaluated, Finished]
    assert [event.step for event in logged] == [0, 2, 4, 6, 8, 10, 12, 13, 13, 13]


@pytest.mark.parametrize(
    ("measured", "precision", "tolerance"),
    [
        ("sets", "float32", 1e-6),
        pytest.param("questions", "float32", 1e-6, marks=pytest.mark.slow),
        pytest.param("questions", "bfloat16", 5e-3, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_measure_what_one_does(
    model: Path, tmp_path: Path, measured: str, precision: str, tolerance: float
) -> None:
    """Sequences are no multiple of the ranks, a set has one sequence, and questions have various lengths."""
    if measured == "sets":
        changes = {"held_out": write_sets(tmp_path / "sets", UNEVEN), "precision": precision}
    else:
        changes = {"questions": write_questions(tmp_path / "questions.json", TASKS), "precision": precision}
    one = evaluate(evaluation(model, tmp_path / "one", **changes))
    two = evaluate(evaluation(model, tmp_path / "two", **changes), ranks=2)
    assert one.precision == two.precision == precision
    for each, other in zip(one.sets.values(), two.sets.values(), strict=True):
        assert each.model_copy(update={"nats": 0.0}) == other.model_copy(update={"nats": 0.0})
        assert each.loss == pytest.approx(other.loss, abs=tolerance)


@pytest.mark.slow
def test_bfloat16_is_the_arithmetic_of_a_training(model: Path, tmp_path: Path, tiny_inputs: Path) -> None:
    """The first evaluation of a run of no learning rate worth mentioning: the same losses, bit for bit."""
    from tiny import job as training
    from trainings import train

    held_out = {name: str(tiny_inputs / name / "held_out.npy") for name in ("code", "general")}
    files = {name: {"path": path, "sha256": "0"} for name, path in held_out.items()}
    for precision in ("float32", "bfloat16"):
        changes = {"training__precision": precision, "training__optimizer__learning_rate": 1e-30}
        run = train(training(tiny_inputs, tmp_path / f"t-{precision}", model=str(model), total_steps=1, **changes))
        tree = evaluation(model, tmp_path / precision, held_out=files, precision=precision)
        losses = {name: each.loss for name, each in evaluate(tree).sets.items()}
        assert losses == pytest.approx(run.result.final, abs=2e-6)
        if precision == "float32":
            exact = losses
    assert losses != pytest.approx(exact, abs=1e-4)  # the two differ by more than what was compared


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_what_was_measured_before_a_kill_is_not_measured_again(
    model: Path, tmp_path: Path, first: int, second: int
) -> None:
    held_out = write_sets(tmp_path / "sets", MANY)
    tree = evaluation(model, tmp_path / "run", held_out=held_out)
    process = start(tree, first)
    wait_for(lambda: any(isinstance(event, Measured) for event in events(tree)), 60, 0.002)
    process.kill()
    ended(process, -signal.SIGKILL)
    before = [event for event in events(tree) if isinstance(event, Measured)]
    assert before[-1].step < sum(MANY.values()) and not (tmp_path / "run/result.json").exists()
    result = evaluate(tree, second)
    resumed = [event for event in events(tree) if isinstance(event, EvaluationStarted)][1]
    assert (resumed.step, resumed.world_size) == (before[-1].step, second)
    measured = [event for event in events(tree) if isinstance(event, Measured)]
    assert [event.first for event in measured] == [0, *(event.step for event in measured[:-1])]  # each row once
    whole = evaluate(evaluation(model, tmp_path / "whole", held_out=held_out))
    assert nats(result) == pytest.approx(nats(whole), rel=1e-6)
    assert result.seconds > before[-1].seconds


@pytest.mark.slow
def test_a_stop_ends_it_after_a_pass_and_the_next_start_goes_on(model: Path, tmp_path: Path) -> None:
    tree = evaluation(model, tmp_path / "run", held_out=write_sets(tmp_path / "sets", MANY))
    process = start(tree, 2)
    wait_for(lambda: any(isinstance(event, Measured) for event in events(tree)), 60, 0.002)
    process.send_signal(signal.SIGTERM)
    said = ended(process, STOPPED)
    done = events(tree)[-1].step
    assert f"measure stopped after sequence {done} of 401; saved" in said
    assert evaluate(tree).sets["code"].sequences == 200
    assert [event.step for event in events(tree) if isinstance(event, EvaluationStarted)] == [0, done]


def test_a_stop_whose_values_were_not_written_does_not_say_that_they_were(model: Path, tmp_path: Path) -> None:
    tree = evaluation(model, tmp_path / "run", held_out=write_sets(tmp_path / "sets", MANY))
    nothing_is_written = Evaluator(EvaluationJob.model_validate(tree), SINGLE_RANK, [], lambda: True)
    with pytest.raises(Interrupted, match=r"stopped after sequence \d+ of 401; 0 of them saved"):
        nothing_is_written.run()


def test_the_folder_of_another_evaluation_is_refused(model: Path, tmp_path: Path) -> None:
    held_out = write_sets(tmp_path / "sets", UNEVEN)
    evaluate(evaluation(model, tmp_path / "run", held_out=held_out))
    other = evaluation(model, tmp_path / "run", held_out=held_out, precision="bfloat16")
    assert "measure had another recipe or other data" in ended(start(other), REFUSED)


def test_a_corrupt_model_and_another_models_tokenizer_are_refused(
    model: Path, tmp_path: Path, tiny_inputs: Path
) -> None:
    corrupt = sharp_model(tmp_path / "corrupt", tiny_inputs)
    tensors = load_file(corrupt / "model.safetensors")
    save_file({name: torch.full_like(each, torch.nan) for name, each in tensors.items()}, corrupt / "model.safetensors")
    tree = evaluation(corrupt, tmp_path / "run", held_out=write_sets(tmp_path / "sets", UNEVEN))
    assert "code: the model gives nan nats; its parameters are corrupt" in ended(start(tree), REFUSED)
    strange = sharp_model(tmp_path / "strange", tiny_inputs)
    tokenizer = strange / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"word63": 63', '"word63": 64'))
    questions = write_questions(tmp_path / "questions.json", TASKS)
    tree = evaluation(strange, tmp_path / "other", questions=questions)
    assert "has the token id 64, and the model embeds only 64 tokens" in ended(start(tree), REFUSED)
