"""The training program in its own process: it finishes, resumes after a kill, and refuses what cannot work."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as torch_file
from tiny import LENGTH, SEQUENCES, VOCABULARY, job
from trainings import ALONE, TOGETHER, Run, assert_ends_like, end, signal_at, start, train, what_was_said

from velocitune_core.train import events
from velocitune_core.train.timeline import timeline

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def unbroken(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(job(tiny_inputs, tmp_path_factory.mktemp("unbroken") / "run"))


def test_a_run_finishes_with_its_result(unbroken: Run) -> None:
    assert unbroken.returncode == 0, unbroken.stderr
    result = unbroken.result
    assert (result.name, result.strategy, result.steps, result.resumed) == ("tiny", "velocitune", 45, 0)
    assert result.tokens == sum(result.tokens_per_domain.values()) == 45 * 6 * LENGTH
    assert [point.step for point in result.points] == list(range(5, 46, 5))
    assert result.final == result.points[-1].losses
    assert all(result.final[name] < result.points[0].losses[name] - 0.1 for name in SEQUENCES)  # it learns
    assert [point.step for point in result.domain_weights] == list(range(0, 41, 5))  # none after the last step
    assert list(result.domain_weights[0].weights.values()) == pytest.approx([0.7, 0.3])
    assert result.domain_weights[-1].weights != result.domain_weights[0].weights
    for name, sequences in SEQUENCES.items():
        expected = result.tokens_per_domain[name] / (sequences * LENGTH)
        assert result.epochs_per_domain[name] == pytest.approx(expected)
    assert unbroken.checkpoints == ["step-00000030", "step-00000045"]


def test_velocities_and_weights_are_those_of_the_method(unbroken: Run) -> None:
    """Recomputed from the events alone: V = (ℓ − ℓ_target) / (4.2 − ℓ_target), w ∝ w·e^V."""
    losses = {event.step: event.losses for event in unbroken.events if isinstance(event, events.Evaluated)}
    weights = np.array([0.7, 0.3])
    for event in unbroken.events:
        if isinstance(event, events.Reweighted) and event.step > 0:  # at step 0 the initial domain weights are logged
            loss = np.array([losses[event.step]["code"], losses[event.step]["general"]])
            velocity = np.clip((loss - [2.0, 3.0]) / [2.2, 1.2], 0, 1)
            weights = weights * np.exp(velocity) / (weights * np.exp(velocity)).sum()
            assert list(event.velocity.values()) == pytest.approx(velocity)
            assert list(event.weights.values()) == pytest.approx(weights)


def test_tokens_follow_the_current_domain_weights(unbroken: Run) -> None:
    """New weights apply from the next step on, so a domain's tokens are the sum over steps of its weight."""
    points, expected = unbroken.result.domain_weights, dict.fromkeys(SEQUENCES, 0.0)
    for event in unbroken.events:
        if isinstance(event, events.Stepped):
            now = [point for point in points if point.step < event.step][-1]
            for name in SEQUENCES:
                expected[name] += 6 * LENGTH * now.weights[name]
                assert abs(event.domain_tokens[name] - expected[name]) < 1.5 * LENGTH


def test_the_trained_model_loads(unbroken: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(unbroken.output / "model", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(unbroken.output / "model", local_files_only=True)
    assert model.config.vocab_size == len(tokenizer) == VOCABULARY
    text = tokenizer.encode("word5 word6 word7 word8 word9", return_tensors="pt")
    assert text.tolist() == [[5, 6, 7, 8, 9]]
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()  # still tied
    assert unbroken.result.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def attempts(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """One run in three attempts: killed after its first checkpoint, stopped by SIGTERM after step 31, then finished."""
    tree = job(tiny_inputs, tmp_path_factory.mktemp("attempts") / "run")
    killed = signal_at(15, signal.SIGKILL, tree, events.Checkpointed)
    events_then = (killed.output / "events.jsonl").read_bytes()
    stopped = signal_at(31, signal.SIGTERM, tree)
    assert (killed.output / "events.jsonl").read_bytes().startswith(events_then[: events_then.rfind(b"\n") + 1])
    assert stopped.checkpoints[-1] >= "step-00000031"
    return [killed, stopped, train(tree)]


def test_the_first_attempt_was_killed_and_the_second_stopped_on_request(attempts: list[Run]) -> None:
    assert [run.returncode for run in attempts] == [-signal.SIGKILL, 75, 0], attempts[-1].stderr
    assert "tiny stopped after step " in attempts[1].stderr
    assert "of 45; saved" in attempts[1].stderr


def test_each_attempt_resumed_from_the_newest_checkpoint(attempts: list[Run]) -> None:
    resumed = [event.resumed_from for event in attempts[-1].events if isinstance(event, events.Started)]
    assert resumed[0] is None and resumed[1] in (15, 30)  # saved by the time of the kill
    assert 31 <= resumed[2] < 45  # where it was stopped, not at the last multiple of fifteen
    assert attempts[-1].result.resumed == 2


def test_a_resumed_run_ends_bit_for_bit_like_the_unbroken_one(attempts: list[Run], unbroken: Run) -> None:
    assert_ends_like(attempts[-1], unbroken)


def test_the_timeline_has_every_step_once_and_each_attempt_its_number(attempts: list[Run]) -> None:
    logged = [event for event in timeline(attempts[-1].events) if not isinstance(event, events.Warned)]
    assert set(Counter((event.event, event.step) for event in logged).values()) == {1}
    starts = [event for event in logged if isinstance(event, events.Started)]
    assert all(start.hardware.endswith(("core", "cores")) for start in starts)
    assert [event.attempt for event in starts] == [1, 2, 3]
    for event in logged:
        if isinstance(event, events.Stepped):  # logged by the last attempt that took this step
            assert event.attempt == max(start.attempt for start in starts if start.step < event.step)


def test_a_changed_job_in_the_same_folder_is_refused_with_the_field(attempts: list[Run], tiny_inputs: Path) -> None:
    output = attempts[-1].output
    before = output.joinpath("result.json").read_bytes()
    refused = train(job(tiny_inputs, output, training__optimizer__learning_rate=2e-2, initial_domain_weights__code=0.6))
    assert refused.returncode == 2
    assert "belongs to another recipe" in refused.stderr
    assert "training.optimizer.learning_rate: 0.01 → 0.02" in refused.stderr
    assert "weights.code: 0.7 → 0.6" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert output.joinpath("result.json").read_bytes() == before


def test_a_diverging_run_stops_and_names_its_checkpoints(tiny_inputs: Path, tmp_path: Path) -> None:
    run = train(job(tiny_inputs, tmp_path / "run", training__optimizer__learning_rate=1e30))
    assert run.returncode == 1
    assert f"the last good checkpoint is in {run.output / 'checkpoints'}" in run.stderr
    assert "lower training.optimizer.learning_rate" in run.stderr
    warnings = [event.message for event in run.events if isinstance(event, events.Warned)]
    assert sum("not applied; its batch was from" in warning for warning in warnings) == 3
    assert not (run.output / "result.json").exists()


def test_a_job_with_several_mistakes_is_refused_with_all_of_them(tiny_inputs: Path, tmp_path: Path) -> None:
    run = train(job(tiny_inputs, tmp_path / "run", training__batch_sequences=0, total_steps="many", colour="red"))
    assert run.returncode == 2
    for problem in ("training.batch_sequences: ", "total_steps: ", "(got 'many')", "colour: unknown key"):
        assert problem in run.stderr
    assert not run.output.exists()


@pytest.fixture(scope="module")
def together(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(job(tiny_inputs, tmp_path_factory.mktemp("together") / "run"), TOGETHER)


@pytest.mark.slow
def test_two_ranks_learn_the_same_as_one(unbroken: Run, together: Run) -> None:
    run = together
    assert run.returncode == 0, run.stderr
    assert run.result.final == pytest.approx(unbroken.result.final, abs=1e-4)
    assert run.result.tokens_per_domain == unbroken.result.tokens_per_domain
    ours, theirs = what_was_said(run), what_was_said(unbroken)
    assert set(ours) == set(theirs)
    for key, event in theirs.items():
        if key[0] == "step":
            assert (ours[key]["loss"], ours[key]["gradient_norm"]) == pytest.approx(
                (event["loss"], event["gradient_norm"]), abs=1e-3
            )
    assert {event.world_size for event in run.events if isinstance(event, events.Started)} == {2}
    for name, weight in unbroken.weights.items():  # gathered, not one rank's shard
        assert run.weights[name] == pytest.approx(weight, abs=1e-3)


@pytest.mark.slow
def test_with_attention_inside_documents_two_ranks_train_as_one(tiny_inputs: Path, tmp_path: Path) -> None:
    changes = {"total_steps": 6, "document_start": 3, "execution__checkpoint_every_steps": 99}
    alone = train(job(tiny_inputs, tmp_path / "alone", **changes))
    together = train(job(tiny_inputs, tmp_path / "together", **changes), TOGETHER)
    across = train(job(tiny_inputs, tmp_path / "across", **changes | {"document_start": None}))
    assert together.result.final == pytest.approx(alone.result.final, abs=1e-5)
    assert across.result.final != pytest.approx(alone.result.final, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("unbroken", TOGETHER), ("together", ALONE)])
def test_a_run_resumes_with_another_number_of_ranks(
    request: pytest.FixtureRequest, unbroken: Run, tiny_inputs: Path, tmp_path: Path, before: str, after: int
) -> None:
    saved = request.getfixturevalue(before).output / "checkpoints" / "step-00000030"
    shutil.copytree(saved, tmp_path / "run" / "checkpoints" / saved.name)
    run = train(job(tiny_inputs, tmp_path / "run"), after)
    assert run.returncode == 0, run.stderr
    assert [event.resumed_from for event in run.events if isinstance(event, events.Started)] == [30]
    assert run.result.final == pytest.approx(unbroken.result.final, abs=1e-4)
    for name, weight in unbroken.weights.items():
        assert run.weights[name] == pytest.approx(weight, abs=1e-3)


IN_BFLOAT16 = {"training__precision": "bfloat16", "strategy": {"name": "static", "options": {}}}


@pytest.fixture(scope="module")
def bfloat16(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = train(job(tiny_inputs, tmp_path_factory.mktemp("bfloat16") / "run", **IN_BFLOAT16))
    assert run.returncode == 0, run.stderr
    return run


def logged_steps(run: Run) -> list[events.Stepped]:
    return [event for event in run.events if isinstance(event, events.Stepped)]


def assert_same_curves(ours: list[events.Stepped], theirs: list[events.Stepped]) -> None:
    """Close curves; measured over 45 steps: losses within 1.1e-3, norms within 0.24 %."""
    assert [each.step for each in ours] == [each.step for each in theirs]
    assert [each.loss for each in ours] == pytest.approx([each.loss for each in theirs], abs=3e-3)
    assert [each.gradient_norm for each in ours] == pytest.approx([each.gradient_norm for each in theirs], rel=1e-2)


@pytest.mark.slow
def test_in_bfloat16_two_ranks_learn_the_same_as_one(bfloat16: Run, tiny_inputs: Path, tmp_path: Path) -> None:
    """The same casts at the same places: the loss of the first step, before any rounding adds up, is the same.

    Losses at the end, over four seeds: within 2.5e-3.
    """
    together = train(job(tiny_inputs, tmp_path / "run", **IN_BFLOAT16), TOGETHER)
    assert together.returncode == 0, together.stderr
    ours, theirs = logged_steps(together), logged_steps(bfloat16)
    assert ours[0].loss == pytest.approx(theirs[0].loss, abs=1e-6)
    assert_same_curves(ours, theirs)
    assert together.result.final == pytest.approx(bfloat16.result.final, abs=4e-3)


@pytest.mark.slow
def test_in_bfloat16_a_run_resumes_with_another_number_of_ranks(
    bfloat16: Run, tiny_inputs: Path, tmp_path: Path
) -> None:
    saved = bfloat16.output / "checkpoints" / "step-00000030"  # just after an evaluation
    shutil.copytree(saved, tmp_path / "run" / "checkpoints" / saved.name)
    resumed = train(job(tiny_inputs, tmp_path / "run", **IN_BFLOAT16), TOGETHER)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.resumed_from == [30]
    assert_same_curves(logged_steps(resumed), logged_steps(bfloat16)[30:])


def test_the_logged_learning_rate_is_the_one_of_the_step(tiny_inputs: Path, tmp_path: Path) -> None:
    """Warm-up over the first two of ten steps, then a linear decay over the last four, down to 0 at the last."""
    schedule = {"kind": "wsd", "warmup_fraction": 0.2, "decay_fraction": 0.4, "final_fraction": 0.0}
    run = train(job(tiny_inputs, tmp_path / "run", total_steps=10, training__schedule=schedule))
    assert run.returncode == 0, run.stderr
    factors = [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert [each.learning_rate for each in logged_steps(run)] == pytest.approx([1e-2 * each for each in factors])


def test_the_total_time_covers_what_no_activity_is_named_for(unbroken: Run) -> None:
    seconds = unbroken.result.seconds
    named = [seconds.training, seconds.sampling, seconds.evaluation, seconds.reweighting, seconds.checkpointing]
    assert seconds.total > sum(named) + 0.01  # loading the model, at least


def test_weights_follow_the_excess_over_a_reference_model(tiny_inputs: Path, tmp_path: Path) -> None:
    """The reference is the initial model: there is no excess at first, so only domains that get worse gain weight."""
    search = {"name": "doremi", "options": {"step_size": 1.0, "smoothing": 0.0}}
    changes = {
        "strategy": search,
        "reference": str(tiny_inputs / "model"),
        "total_steps": 6,
        "evaluation__every_steps": 3,
    }
    run = train(job(tiny_inputs, tmp_path / "run", **changes))
    assert run.returncode == 0, run.stderr
    assert list(run.result.domain_weights[0].weights.values()) == pytest.approx([0.7, 0.3])
    assert sum(run.result.mean_domain_weights.values()) == pytest.approx(1.0)
    assert run.result.mean_domain_weights != pytest.approx({"code": 0.7, "general": 0.3}, abs=1e-12)


@pytest.mark.slow
def test_a_strategy_sees_the_same_batch_losses_on_two_ranks_as_on_one(tiny_inputs: Path, tmp_path: Path) -> None:
    """Online data mixing follows the training loss of every batch, so its weights show which losses it received."""
    changes = {"strategy": {"name": "odm", "options": {}}, "total_steps": 8, "evaluation__every_steps": 2}
    changes |= {"training__batch_sequences": 8, "execution__micro_batch_sequences": 2}
    alone = train(job(tiny_inputs, tmp_path / "alone", **changes))
    together = train(job(tiny_inputs, tmp_path / "together", **changes), TOGETHER)
    assert alone.returncode == together.returncode == 0, together.stderr
    assert together.result.mean_domain_weights == pytest.approx(alone.result.mean_domain_weights, abs=1e-5)
    assert alone.result.domain_weights[-1].weights != alone.result.domain_weights[1].weights


RANDOM_STRATEGY = """
import json, os
import numpy as np
from velocitune_core.strategies import Strategy

class Random(Strategy):
    def update(self, observation):
        self.weights = np.random.default_rng().dirichlet(np.ones(len(self.domains)))
        return self.weights

    def observe_batch(self, batch):
        with open(os.environ["BATCHES"] + os.environ["RANK"], "a") as file:
            file.write(json.dumps(batch.sequences.tolist()) + "\\n")
"""


@pytest.mark.slow
def test_ranks_sample_the_same_batches_under_a_strategy_of_random_weights(tiny_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "random_strategy.py").write_text(RANDOM_STRATEGY)
    changes = {"strategy": {"name": "random_strategy:Random", "options": {}}, "total_steps": 12}
    changes |= {"evaluation__every_steps": 1, "training__batch_sequences": 12}
    tree = job(tiny_inputs, tmp_path / "run", **changes)
    run = end(start(tree, TOGETHER, PYTHONPATH=f"{PROJECT}:{tmp_path}", BATCHES=str(tmp_path / "batches-")), tree)
    assert run.returncode == 0, run.stderr
    first, second = ((tmp_path / f"batches-{rank}").read_text().splitlines() for rank in (0, 1))
    assert len(first) == 12 and first == second
    assert len(set(first)) > 2, "the weights changed"


def test_a_reference_of_another_tokenizer_is_refused(tiny_inputs: Path, tmp_path: Path) -> None:
    other = tmp_path / "reference"
    shutil.copytree(tiny_inputs / "model", other)
    tokenizer = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(tokenizer.replace('"word7"', '"seven"'))
    run = train(job(tiny_inputs, tmp_path / "run", strategy={"name": "doremi", "options": {}}, reference=str(other)))
    assert run.returncode == 2
    assert "another tokenizer" in run.stderr and str(other) in run.stderr


def test_the_model_is_saved_in_the_dtype_of_the_job(tiny_inputs: Path, tmp_path: Path) -> None:
    run = train(job(tiny_inputs, tmp_path / "run", total_steps=2, save_dtype="bfloat16"))
    assert run.returncode == 0, run.stderr
    assert json.loads((run.output / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {each.dtype for each in torch_file(run.output / "model" / "model.safetensors").values()} == {torch.bfloat16}
