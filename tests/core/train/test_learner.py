"""Gradients, accumulation and excess losses against a plain torch loop; dropout, memory, and a resumed learner."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import write_architecture
from safetensors.torch import load_file
from tiny import LENGTH, SEQUENCES, VOCABULARY, llama, rows
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from transformers import GPT2Config, GPT2LMHeadModel

from velocitune_core.checkpoint.store import load_checkpoint, save_checkpoint
from velocitune_core.config import ConfigError, Execution, SaveDtype, Training
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import load_model, save_model
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks, leave_ranks
from velocitune_core.train.learner import BatchLoss, Learner

RATE, BATCH = 1e-2, 6
DOMAINS = np.array([0, 2, 0, 0, 2, 0])  # of three: the batch has none of domain 1


@pytest.fixture(autouse=True)
def _no_process_group_is_left() -> Iterator[None]:
    yield
    leave_ranks()  # a single rank in bfloat16 makes one


def batch(number: int) -> Tensor:
    """Token ids (6, LENGTH), another batch for every number."""
    every = np.concatenate([rows(name, count) for name, count in SEQUENCES.items()]).astype(np.int64)
    return torch.from_numpy(np.random.default_rng(number).permutation(every)[:BATCH])


def learner_of(inputs: Path, reference: Path | None = None, **settings: Any) -> Learner:
    execution = {name: settings.pop(name) for name in Execution.model_fields if name in settings}
    defaults = {"batch_sequences": BATCH, "optimizer": {"learning_rate": RATE}, "precision": "float32"}
    return Learner(
        str(inputs / "model"),
        Training.model_validate(defaults | settings),
        Execution.model_validate(execution),
        SINGLE_RANK,
        None if reference is None else str(reference),
    )


def train(learner: Learner, start: int = 0, steps: int = 3) -> list[BatchLoss]:
    found = []
    for number in range(start, start + steps):
        found.append(learner.gradients(batch(number), DOMAINS, 3))
        learner.apply(RATE)
    return found


def parameters(learner: Learner) -> dict[str, Tensor]:
    """Copies, by the model's own names."""
    return {
        name.removeprefix("model."): tensor.clone()
        for name, tensor in learner.state().items()
        if name.startswith("model.")
    }


def plain_nats(model: Any, sequences: Tensor) -> Tensor:
    """Nats of each prediction, (batch, length − 1), from the model's own logits."""
    logits = model(input_ids=sequences, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), sequences[:, 1:], reduction="none")


def save_other_model(inputs: Path, folder: Path) -> Path:
    """A model with the same tokenizer and other embeddings, so that about half of its losses are lower."""
    model = llama()
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings.add_(0.03 * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1)))
    save_model(model, load_tokenizer(str(inputs / "model")), folder)
    return folder


def test_steps_are_those_of_a_plain_torch_loop(tiny_inputs: Path) -> None:
    learner = learner_of(tiny_inputs, optimizer={"learning_rate": RATE, "gradient_clip": 0.5, "weight_decay": 0.1})
    found = train(learner, steps=4)

    model = load_model(str(tiny_inputs / "model"))
    decayed = [each for each in model.parameters() if each.ndim == 2]
    gains = [each for each in model.parameters() if each.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    for number, batch_loss in enumerate(found):
        nats = plain_nats(model, batch(number))
        nats.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert norm > 0.5, "the gradient is clipped"
        optimizer.step()
        optimizer.zero_grad()
        assert batch_loss.loss == pytest.approx(nats.mean().item(), rel=1e-6)
        assert batch_loss.gradient_norm == pytest.approx(norm.item(), rel=1e-5)
        by_domain = [nats[domain == DOMAINS].mean().item() for domain in (0, 2)]
        assert batch_loss.domain_losses[[0, 2]] == pytest.approx(by_domain, rel=1e-6)
        assert np.isnan(batch_loss.domain_losses[1])
        assert batch_loss.domain_excess is None and batch_loss.finite
    expected = dict(model.named_parameters())
    ours = parameters(learner)
    assert set(ours) == set(expected)  # tied parameters once
    for name, parameter in expected.items():  # AdamW makes of a gradient near 0, and of its rounding, a whole step
        torch.testing.assert_close(ours[name], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_add_up_to_the_batch(tiny_inputs: Path, micro: int, precision: str) -> None:
    whole = learner_of(tiny_inputs, precision=precision)
    parts = learner_of(tiny_inputs, precision=precision, micro_batch_sequences=micro)
    expected, found = train(whole, steps=1)[0], train(parts, steps=1)[0]
    tolerance = 1e-6 if precision == "float32" else 2e-2  # sums of gradients of bfloat16 activations
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=tolerance)
    assert found.domain_losses == pytest.approx(expected.domain_losses, rel=1e-6, nan_ok=True)


def test_excess_is_the_mean_of_what_each_token_loses_above_the_reference(tiny_inputs: Path, tmp_path: Path) -> None:
    reference = save_other_model(tiny_inputs, tmp_path / "reference")
    learner = learner_of(tiny_inputs, reference, micro_batch_sequences=2)
    found = train(learner)

    other, plain = load_model(str(reference)), learner_of(tiny_inputs)
    with torch.no_grad():
        model = load_model(str(tiny_inputs / "model"))
        excess = (plain_nats(model, batch(0)) - plain_nats(other, batch(0))).clamp(min=0)
        assert 0.1 < (excess == 0).float().mean() < 0.9, "the clamp acts on some tokens"
    by_domain = [excess[domain == DOMAINS].mean().item() for domain in (0, 2)]
    assert found[0].domain_excess is not None
    assert found[0].domain_excess[[0, 2]] == pytest.approx(by_domain, rel=1e-5)
    assert np.isnan(found[0].domain_excess[1])
    # The reference is measured and neither trained nor part of the gradients.
    assert [each.loss for each in found] == pytest.approx([each.loss for each in train(plain)], rel=1e-6)
    again = learner.gradients(batch(0), DOMAINS, 3).domain_excess
    with torch.no_grad():
        trained = load_model(str(tiny_inputs / "model"))
        trained.load_state_dict(parameters(learner), strict=False)
        excess = (plain_nats(trained, batch(0)) - plain_nats(other, batch(0))).clamp(min=0)
    assert again is not None
    assert again[[0, 2]] == pytest.approx([excess[domain == DOMAINS].mean().item() for domain in (0, 2)], rel=1e-4)


def test_bfloat16_computes_in_it_and_keeps_parameters_and_moments_in_float32(tiny_inputs: Path) -> None:
    exact, rounded = learner_of(tiny_inputs), learner_of(tiny_inputs, precision="bfloat16")
    expected, found = train(exact, steps=1)[0], train(rounded, steps=1)[0]
    assert found.loss == pytest.approx(expected.loss, rel=2e-3) and found.loss != expected.loss
    assert {each.dtype for name, each in rounded.state().items() if name != "rng"} == {torch.float32}
    held_out = {"code": rows("code", 4)}
    assert rounded.evaluate(held_out, 4) == pytest.approx(exact.evaluate(held_out, 4), rel=5e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_restored_learner_continues_bit_for_bit(tiny_inputs: Path, tmp_path: Path, precision: str) -> None:
    unbroken = learner_of(tiny_inputs, precision=precision)
    train(unbroken, steps=2)
    path = save_checkpoint(tmp_path, 2, unbroken.state(), {}, keep=1)
    resumed = learner_of(tiny_inputs, precision=precision)
    resumed.load_state(load_checkpoint(path))
    expected, found = train(unbroken, start=2), train(resumed, start=2)
    assert [each.loss for each in found] == [each.loss for each in expected]
    assert [each.gradient_norm for each in found] == [each.gradient_norm for each in expected]
    ours, theirs = (dict(each.state()) for each in (resumed, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_model_that_draws_random_numbers_goes_on_with_those_that_it_would_have_drawn(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    """Dropout is off; the router of a mixture of experts may still scale its inputs at random."""
    write_architecture("mixtral", tmp_path, tiny_inputs / "model").rename(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    plain = learner_of(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"router_jitter_noise": 0.5}))
    unbroken = learner_of(tmp_path)
    assert train(unbroken, steps=2)[1].loss != train(plain, steps=2)[1].loss
    path = save_checkpoint(tmp_path, 2, unbroken.state(), {}, keep=1)
    expected = [each.loss for each in train(unbroken, start=2)]
    resumed = learner_of(tmp_path)
    resumed.load_state(load_checkpoint(path))
    assert [each.loss for each in train(resumed, start=2)] == expected


def test_an_evaluation_alone_takes_no_memory_for_moments(tiny_inputs: Path) -> None:
    learner = learner_of(tiny_inputs)
    learner.evaluate({"code": rows("code", 4)}, 4)
    assert not learner._optimizer.state


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_evaluation_changes_nothing_that_is_saved(tiny_inputs: Path, tmp_path: Path, precision: str) -> None:
    """FSDP leaves parameters gathered, in bfloat16, after a forward pass that no backward pass follows."""
    learner = learner_of(tiny_inputs, precision=precision)
    train(learner)
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    learner.evaluate({"code": rows("code", 4)}, 4)
    after = learner.state()
    assert set(after) == set(before)
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)
    learner.evaluate({"code": rows("code", 4)}, 4)
    learner.save(tmp_path / "model")
    saved = load_model(str(tmp_path / "model")).state_dict()
    full = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in before.items()}
    assert all(torch.equal(saved[name.removeprefix("model.")], full[name]) for name in full if "model." in name[:6])


def test_discarded_gradients_are_not_part_of_the_next_step(tiny_inputs: Path) -> None:
    skipping, plain = learner_of(tiny_inputs), learner_of(tiny_inputs)
    skipping.gradients(batch(7), DOMAINS, 3)
    skipping.discard_gradients()
    assert [each.gradient_norm for each in train(skipping)] == [each.gradient_norm for each in train(plain)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activation_checkpointing_keeps_fewer_bytes_and_the_same_gradients(tiny_inputs: Path, precision: str) -> None:
    keeping = learner_of(tiny_inputs, precision=precision)
    recomputing = learner_of(tiny_inputs, precision=precision, activation_checkpointing=True)
    assert kept_bytes(recomputing) < 0.5 * kept_bytes(keeping)
    assert [each.gradient_norm for each in train(recomputing)] == [each.gradient_norm for each in train(keeping)]


def kept_bytes(learner: Learner) -> int:
    """Bytes of the tensors that autograd keeps from a forward pass for the backward pass."""
    kept: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        learner.gradients(batch(0), DOMAINS, 3)
    learner.discard_gradients()
    return sum(kept.values())


def test_dropout_is_off_in_training_and_kept_in_the_saved_configuration(tiny_inputs: Path, tmp_path: Path) -> None:
    shape = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    assert shape.resid_pdrop == shape.attn_pdrop == shape.embd_pdrop == 0.1
    model = GPT2LMHeadModel(shape).eval()
    save_model(model, load_tokenizer(str(tiny_inputs / "model")), tmp_path / "model")
    learner = learner_of(tmp_path)
    (warning,) = learner.model_notes
    assert "dropout of the model" in warning and "Dropout" in warning
    with torch.no_grad():
        expected = plain_nats(model, batch(0)).mean().item()
    losses = [learner.gradients(batch(0), DOMAINS, 3).loss for _ in range(3)]
    assert losses == pytest.approx([expected] * 3, rel=1e-6)
    assert learner._model.training
    learner.discard_gradients()
    learner.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert [saved[name] for name in ("resid_pdrop", "attn_pdrop", "embd_pdrop")] == [0.1, 0.1, 0.1]


@pytest.fixture
def in_bfloat16(tiny_inputs: Path, tmp_path: Path) -> Path:
    """Inputs with a model that is stored in bfloat16."""
    save_model(llama().bfloat16(), load_tokenizer(str(tiny_inputs / "model")), tmp_path / "model")
    return tmp_path


@pytest.mark.parametrize(("dtype", "expected"), [("auto", "bfloat16"), ("float32", "float32"), ("float16", "float16")])
def test_a_model_is_saved_in_the_dtype_of_its_source_or_another(
    in_bfloat16: Path, dtype: SaveDtype, expected: str
) -> None:
    """Trained in float32, rounded once when it is written, and its configuration says so."""
    learner = learner_of(in_bfloat16)
    train(learner)
    before = os.umask(0o022)
    try:
        assert learner.save(in_bfloat16 / "saved", dtype) == []
    finally:
        os.umask(before)
    file = in_bfloat16 / "saved" / "model.safetensors"
    stored, trained = load_file(file), parameters(learner)
    assert {each.dtype for each in stored.values()} == {getattr(torch, expected)}
    assert all(torch.equal(each, trained[name].to(each.dtype)) for name, each in stored.items())
    assert json.loads((in_bfloat16 / "saved" / "config.json").read_text())["dtype"] == expected
    assert file.stat().st_mode & 0o777 == 0o644
    if dtype == "auto":
        assert file.stat().st_size == pytest.approx(
            (in_bfloat16 / "model" / "model.safetensors").stat().st_size, rel=0.02
        )


def test_weights_too_large_for_float16_are_saved_in_float32_with_a_warning(tiny_inputs: Path, tmp_path: Path) -> None:
    learner = learner_of(tiny_inputs)
    with torch.no_grad():
        learner._model.model.norm.weight[3] = 1e5
    (warning,) = learner.save(tmp_path / "saved", "float16")
    assert "model.save_dtype" in warning
    assert load_file(tmp_path / "saved" / "model.safetensors")["model.norm.weight"][3] == 1e5
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "float32"


def test_a_model_that_asks_for_what_is_not_done_is_refused(tiny_inputs: Path, tmp_path: Path) -> None:
    folder = write_architecture("mixtral", tmp_path, tiny_inputs / "model")
    folder.rename(tmp_path / "model")
    (note,) = learner_of(tmp_path).model_notes
    assert "no router loss is added" in note
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"output_router_logits": True}))
    with pytest.raises(ModelError, match="sets a router loss"):
        learner_of(tmp_path)


def test_a_model_without_dropout_has_no_warning(tiny_inputs: Path) -> None:
    assert learner_of(tiny_inputs).model_notes == []


def test_a_batch_that_ranks_cannot_share_evenly_is_refused(tiny_inputs: Path) -> None:
    settings = Training.model_validate({"batch_sequences": BATCH, "optimizer": {"learning_rate": RATE}})
    with pytest.raises(ConfigError, match="batch_sequences 6 is not a multiple of 4 processes"):
        Learner(str(tiny_inputs / "model"), settings, Execution(), Ranks(0, 4, torch.device("cpu")))
