"""Memory of a training, against numbers worked out by hand and against what torch keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapes import SEVEN_BILLION
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM

from velocitune_core.config import ConfigError
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.modules import transformer_layers
from velocitune_core.parallel.fsdp import shard
from velocitune_core.parallel.ranks import SINGLE_RANK, leave_ranks
from velocitune_core.plan.cost import ModelShape
from velocitune_core.plan.memory import Setting, fits, layer_bytes, memory_of, parse_size, remedies

SETTING = Setting(sequence_length=4096, batch_sequences=64, micro_batch_sequences=1, evaluation_sequences=1)


def test_seven_billion_parameters_in_float32() -> None:
    found = memory_of(SEVEN_BILLION, SETTING)
    assert found.parameters == found.gradients == 26_953_662_464  # 4 bytes each
    assert found.moments == 53_907_324_928
    # 24·4096 + 8·8192 + 16·11008 = 339,968 bytes per token and layer; the last norm 12·4096
    assert found.activations == 4096 * (32 * 339_968 + 49_152)
    assert found.logits == 12 * 2**26  # of 4096 · 32,000 logits, what is there at once
    assert found.gathered == found.cast_parameters == found.reference == 0
    assert found.accumulates and found.peak == sum(
        (found.parameters, found.gradients, found.moments, found.activations, found.logits)
    )


def test_seven_billion_parameters_over_64_processes() -> None:
    found = memory_of(SEVEN_BILLION, replace(SETTING, processes=64, bfloat16=True))
    assert found.parameters == 421_150_976 and found.moments == 842_301_952
    assert found.cast_parameters == 0  # layers are gathered in bfloat16
    assert memory_of(SEVEN_BILLION, replace(SETTING, bfloat16=True)).cast_parameters == 2 * 6_738_415_616
    # weights and gradients of embedding and head; three times a layer's 202,383,488 (the last norm is shared out)
    assert found.gathered == 2 * (2 * 262_144_000 + 3 * 202_383_488)
    assert layer_bytes(SEVEN_BILLION, bfloat16=True) == 16 * 4096 + 4 * 8192 + 8 * 11_008
    assert not found.accumulates  # one sequence each is the whole batch


def test_gathered_once_a_step_parameters_and_gradients_are_whole() -> None:
    setting = replace(SETTING, processes=64, bfloat16=True)
    layer, step = memory_of(SEVEN_BILLION, setting), memory_of(SEVEN_BILLION, replace(setting, gather_per_step=True))
    assert step.step - layer.step == (2 + 4) * 6_738_415_616 - layer.gathered
    assert step.held_out == layer.held_out and step.steady == layer.steady
    assert memory_of(SEVEN_BILLION, replace(SETTING, gather_per_step=True)) == memory_of(SEVEN_BILLION, SETTING)


def test_activation_checkpointing_keeps_the_inputs_of_layers() -> None:
    found = memory_of(SEVEN_BILLION, replace(SETTING, activation_checkpointing=True))
    assert found.activations == 4096 * (32 * 4 * 4096 + 49_152)
    assert found.logits == 4096 * 339_968  # one layer, computed again, is more than the chunk of logits
    rounded = memory_of(SEVEN_BILLION, replace(SETTING, activation_checkpointing=True, bfloat16=True))
    assert rounded.activations == 4096 * (32 * 2 * 4096 + 8 * 4096)


def test_a_large_held_out_batch_is_the_peak() -> None:
    found = memory_of(SEVEN_BILLION, replace(SETTING, evaluation_sequences=256))
    assert found.peak_in_evaluation
    assert found.peak == found.parameters + found.moments + 256 * 4096 * 339_968


def test_a_process_takes_its_share_and_one_part_at_a_time_whole() -> None:
    found = memory_of(SEVEN_BILLION, replace(SETTING, processes=64))
    assert found.loading == 421_150_976 + 4 * 262_144_000  # embedding and head are more than a layer
    assert memory_of(SEVEN_BILLION, SETTING).loading == 26_953_662_464


LENGTH, BATCH, VOCABULARY, LAYERS = 64, 4, 128, 3
LOG_PROBABILITIES = 4 * BATCH * LENGTH * VOCABULARY  # of the loss's 12 bytes, those kept for the backward pass


def small_llama(key_value_heads: int = 4) -> tuple[LlamaForCausalLM, ModelShape]:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).train()
    parameters = sum(each.numel() for each in model.parameters())
    return model, ModelShape(parameters, LAYERS, 64, 160, 4, key_value_heads, 16, VOCABULARY, tied=True)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_activations_are_what_autograd_keeps(bfloat16: bool, key_value_heads: int) -> None:
    model, shape = small_llama(key_value_heads)
    if bfloat16:  # as FSDP casts it for a pass
        model.bfloat16()
    predicted = memory_of(shape, Setting(LENGTH, BATCH, BATCH, 1, bfloat16=bfloat16))
    kept = kept_by_autograd(NextTokenLoss(model))
    assert kept == pytest.approx(predicted.activations + LOG_PROBABILITIES, rel=0.02)


def test_a_single_rank_in_bfloat16_keeps_the_cast_parameters_too() -> None:
    model, shape = small_llama()
    predicted = memory_of(shape, Setting(LENGTH, BATCH, BATCH, 1, bfloat16=True))
    kept = kept_by_autograd(sharded(model))
    assert kept == pytest.approx(predicted.activations + predicted.cast_parameters + LOG_PROBABILITIES, rel=0.02)


def test_with_activation_checkpointing_a_single_rank_in_bfloat16_keeps_the_inputs_of_layers() -> None:
    model, shape = small_llama()
    model.activation_checkpointing_enable({"use_reentrant": False})
    predicted = memory_of(shape, Setting(LENGTH, BATCH, BATCH, 1, bfloat16=True, activation_checkpointing=True))
    embedding = 2 * 64 * VOCABULARY  # the cast output matrix; those of layers are gathered again
    kept = kept_by_autograd(sharded(model))
    assert kept == pytest.approx(predicted.activations + embedding + LOG_PROBABILITIES, rel=0.02)


def sharded(model: LlamaForCausalLM) -> NextTokenLoss:
    """As a Learner has it in bfloat16."""
    loss = NextTokenLoss(model)
    shard(loss, transformer_layers(model), SINGLE_RANK, torch.bfloat16)
    return loss


@pytest.fixture(autouse=True)
def _no_process_group_is_left() -> Iterator[None]:
    yield
    leave_ranks()


def kept_by_autograd(loss: NextTokenLoss) -> int:
    """Bytes of distinct storages that wait for the backward pass, without those of the module's parameters."""
    parameters = {each.untyped_storage().data_ptr() for each in loss.parameters() if not isinstance(each, DTensor)}
    storages: dict[int, torch.UntypedStorage] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        nats = loss(torch.zeros(BATCH, LENGTH, dtype=torch.long))
    assert nats.requires_grad
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in parameters)


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    head_size, heads, layers = draw(st.sampled_from([32, 64, 128])), draw(st.integers(1, 64)), draw(st.integers(1, 80))
    hidden, vocabulary = head_size * heads, draw(st.integers(300, 200_000))
    parameters = layers * 12 * hidden**2 + vocabulary * hidden
    return ModelShape(parameters, layers, hidden, 3 * hidden, heads, heads, head_size, vocabulary, tied=True)


@st.composite
def settings_of_trainings(draw: st.DrawFn) -> Setting:
    micro, processes, accumulated = (draw(st.integers(1, 8)) for _ in range(3))
    return Setting(
        sequence_length=draw(st.integers(8, 8192)),
        batch_sequences=micro * processes * accumulated,
        micro_batch_sequences=micro,
        evaluation_sequences=draw(st.integers(1, 64)),
        processes=processes,
        bfloat16=draw(st.booleans()),
        activation_checkpointing=draw(st.booleans()),
    )


@given(shapes(), settings_of_trainings(), st.integers(10**8, 10**12))
def test_what_is_advised_fits_and_can_be_run(shape: ModelShape, setting: Setting, device: int) -> None:
    for remedy in remedies(shape, setting, device):
        assert fits(shape, remedy.setting, device)
        assert remedy.memory == memory_of(shape, remedy.setting)
        assert setting.batch_sequences % (remedy.setting.processes * remedy.setting.micro_batch_sequences) == 0
        assert remedy.setting.micro_batch_sequences <= setting.micro_batch_sequences
        assert remedy.setting.activation_checkpointing >= setting.activation_checkpointing


@given(shapes(), settings_of_trainings(), st.integers(10**8, 10**12))
def test_what_fits_needs_no_change(shape: ModelShape, setting: Setting, device: int) -> None:
    advised = remedies(shape, setting, device)
    if fits(shape, setting, device):
        assert advised[0].changes == {}
    else:
        assert all(remedy.changes for remedy in advised)


def test_advice_comes_cheapest_first() -> None:
    setting = Setting(sequence_length=2048, batch_sequences=8, micro_batch_sequences=8, evaluation_sequences=1)
    small = replace(SEVEN_BILLION, layers=8, parameters=1_881_280_000)
    advised = [remedy.changes for remedy in remedies(small, setting, 50 * 10**9)]
    assert advised == [
        {"execution.micro_batch_sequences": 2},
        {"execution.activation_checkpointing": True},
        {"execution.micro_batch_sequences": 4, "resources.processes": 2},
    ]
    assert not fits(small, replace(setting, micro_batch_sequences=4), 50 * 10**9)


def test_more_processes_are_not_advised_where_there_can_be_only_one() -> None:
    assert remedies(SEVEN_BILLION, SETTING, 80 * 10**9, more_processes=False) == []
    (only,) = remedies(SEVEN_BILLION, replace(SETTING, bfloat16=True), 80 * 10**9)
    assert only.changes == {"execution.activation_checkpointing": True, "resources.processes": 2}


@pytest.mark.parametrize(
    ("text", "count"),
    [("80GB", 80 * 10**9), ("24 GiB", 24 * 2**30), ("512MB", 512 * 10**6), ("1.5tb", 1.5 * 10**12), ("7b", 7)],
)
def test_sizes(text: str, count: float) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["80 bananas", "80", "GB", "-1GB", "0GB", "", "1e9GB", "80GB or so", "nanGB"])
def test_text_that_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)
