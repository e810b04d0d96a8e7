"""With the mask, the losses of a document in a packed row are those that it has alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from documents_alone import alone
from torch import Tensor
from transformers import (
    AutoConfig,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    masking_utils,
)
from transformers import AutoModelForCausalLM as Models

from velocitune_core.config import Execution, Training
from velocitune_core.model import documents
from velocitune_core.model.documents import (
    check_document_mask,
    document_mask_problem,
    document_positions,
    masks_without_waiting,
)
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import save_model
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.miniature import miniature
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.ranks import SINGLE_RANK, leave_ranks
from velocitune_core.train.learner import Learner

START = 0
LENGTHS = ((5, 4, 7), (16,), (1, 1, 14), (3, 13))  # of the documents of each row, with their start token
ROWS = torch.randint(1, 64, (len(LENGTHS), 16), generator=torch.Generator().manual_seed(3))
for row, lengths in zip(ROWS, LENGTHS, strict=True):
    row[torch.tensor([0, *lengths]).cumsum(0)[:-1]] = START
ROWS[1, 0] = 9  # a row may begin in the middle of a document
WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHARP = {"vocab_size": 64, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
GROUPED = {**WIDTHS, **SHARP, "num_key_value_heads": 1, "head_dim": 8}
SHAPES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, **SHARP),
    "gpt_neox": GPTNeoXConfig(**WIDTHS, **SHARP),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, sliding_window=4, query_pre_attn_scalar=8),
    "mistral": MistralConfig(**GROUPED, sliding_window=4),
}

UNMASKED = {
    "bloom": BloomConfig(hidden_size=16, n_layer=2, n_head=2, **SHARP),  # ALiBi
    "mamba": MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, **SHARP),
    "opt": OPTConfig(
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=16,
        init_std=0.4,
        vocab_size=64,
    ),
}


def build(config: PreTrainedConfig, attention: str | None = None) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Models.from_config(config, attn_implementation=attention).eval()


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tiny_inputs: Path, tmp_path: Path) -> Path:
    save_model(build(SHAPES[request.param]), load_tokenizer(str(tiny_inputs / "model")), tmp_path / "model")
    return tmp_path / "model"


def learner(
    folder: Path, document_start: int | None, precision: str = "float32", reference: Path | None = None
) -> Learner:
    training = {"batch_sequences": len(ROWS), "optimizer": {"learning_rate": 1e-2}, "precision": precision}
    return Learner(
        str(folder),
        Training.model_validate(training),
        Execution(micro_batch_sequences=2),
        SINGLE_RANK,
        None if reference is None else str(reference),
        document_start,
    )


def test_positions_start_again_with_each_document() -> None:
    rows = torch.tensor([[0, 5, 6, 0, 7], [8, 0, 0, 9, 9], [3, 3, 3, 3, 3]])
    assert document_positions(rows, 0).tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("name", "attention"), [*((name, None) for name in SHAPES), ("llama", "eager")])
@torch.no_grad()
def test_a_document_has_the_losses_that_it_has_alone(name: str, attention: str | None) -> None:
    model = build(SHAPES[name], attention)
    expected = torch.stack([alone(model, row, lengths) for row, lengths in zip(ROWS, LENGTHS, strict=True)])
    masked = NextTokenLoss(model, document_start=START)
    torch.testing.assert_close(masked(ROWS), expected, atol=1e-5, rtol=1e-5)
    check_document_mask(masked, START, torch.device("cpu"))
    assert masked.document_start == START
    across = NextTokenLoss(model)(ROWS)
    assert (across - expected)[[0, 2, 3]].abs().max() > 0.1


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_hidden_states_are_bit_for_bit_those_with_transformers_own_look_at_positions(name: str) -> None:
    loss = NextTokenLoss(build(SHAPES[name]), document_start=START)
    for rows, several in ((ROWS, True), (ROWS[1:2], False)):
        assert loss.packed(rows) is several
        inputs = {"input_ids": rows, "position_ids": document_positions(rows, START), "use_cache": False}
        expected = loss.model.base_model(**inputs).last_hidden_state
        with masks_without_waiting(packed=several):
            assert torch.equal(loss.model.base_model(**inputs).last_hidden_state, expected)
    assert not NextTokenLoss(loss.model).packed(ROWS)


def test_what_rows_hold_is_told_for_the_forward_passes_of_one_thread() -> None:
    one_document = torch.arange(4)[None]

    def looked() -> bool:
        return masking_utils.find_packed_sequence_indices(one_document) is None

    with ThreadPoolExecutor(1) as other, masks_without_waiting(packed=True):
        assert not looked() and other.submit(looked).result()
        with masks_without_waiting(packed=False):
            assert looked()
        assert not looked()
    assert looked()


def test_without_that_function_transformers_masks_as_it_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(masking_utils, "find_packed_sequence_indices")
    documents._replace_look_at_positions.cache_clear()
    for _ in range(2):
        with masks_without_waiting(packed=True):
            assert not hasattr(masking_utils, "find_packed_sequence_indices")
    documents._replace_look_at_positions.cache_clear()
    assert len(caplog.records) == 1 and "a step may wait for the device" in caplog.text


def test_training_and_evaluation_give_those_losses(folder: Path) -> None:
    model = Models.from_pretrained(folder).eval()
    rows = list(zip(ROWS, LENGTHS, strict=True))
    with torch.no_grad():
        expected = [float(alone(model, row, lengths).mean()) for row, lengths in rows]
    held_out = {str(number): row[None].numpy().astype(np.uint16) for number, row in enumerate(ROWS)}
    owners = np.arange(len(ROWS))
    inside, across = learner(folder, START), learner(folder, None)
    assert list(inside.evaluate(held_out, 3).values()) == pytest.approx(expected, abs=1e-5)
    assert inside.gradients(ROWS, owners, len(ROWS)).domain_losses == pytest.approx(expected, abs=1e-5)
    for found in (list(across.evaluate(held_out, 3).values()), across.gradients(ROWS, owners, len(ROWS)).domain_losses):
        assert np.abs(np.asarray(found) - expected).max() > 0.02


def test_the_losses_of_a_reference_are_of_attention_inside_documents_too(
    folder: Path, tiny_inputs: Path, tmp_path: Path
) -> None:
    other = build(SHAPES["qwen3"])
    save_model(other, load_tokenizer(str(tiny_inputs / "model")), tmp_path / "reference")
    trained, owners = Models.from_pretrained(folder).eval(), np.arange(len(ROWS))

    def excess(losses: Callable[[PreTrainedModel], Tensor]) -> list[float]:
        with torch.no_grad():
            return (losses(trained) - losses(other)).clamp(min=0).mean(dim=1).tolist()

    def inside(model: PreTrainedModel) -> Tensor:
        return torch.stack([alone(model, row, lengths) for row, lengths in zip(ROWS, LENGTHS, strict=True)])

    found = learner(folder, START, reference=tmp_path / "reference").gradients(ROWS, owners, len(ROWS)).domain_excess
    assert found == pytest.approx(excess(inside), abs=1e-4)
    assert found != pytest.approx(excess(lambda model: NextTokenLoss(model)(ROWS)), abs=0.02)


def test_the_check_leaves_parameters_of_mixed_precision_as_they_are(folder: Path) -> None:
    with torch.no_grad():
        expected = NextTokenLoss(Models.from_pretrained(folder).eval(), document_start=START)(ROWS).mean()
    half = learner(folder, START, "bfloat16")
    assert {each.dtype for name, each in half.state().items() if name.startswith("model.")} == {torch.float32}
    losses = half.evaluate({"all": ROWS.numpy().astype(np.uint16)}, 4)
    assert losses["all"] == pytest.approx(float(expected), abs=0.1)
    leave_ranks()


@pytest.mark.parametrize("name", UNMASKED)
def test_a_model_that_cannot_be_masked_is_refused_with_field_and_fix(
    name: str, tiny_inputs: Path, tmp_path: Path
) -> None:
    save_model(build(UNMASKED[name]), load_tokenizer(str(tiny_inputs / "model")), tmp_path / "model")
    with pytest.raises(ModelError, match=rf"data\.document_mask: true, .* a {name} model .*; set it to false"):
        learner(tmp_path / "model", START)
    learner(tmp_path / "model", None)


@pytest.mark.parametrize("kind", ["bloom", "mpt", "gpt_oss", "opt", "mamba", "falcon"])
def test_a_configuration_shows_that_its_model_cannot_be_masked(kind: str, tmp_path: Path) -> None:
    """Whatever its size: these are the published ones, of up to 20 billion parameters."""
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    problem = document_mask_problem(str(tmp_path))
    assert problem is not None and problem.startswith("data.document_mask: true,") and f" a {kind} model " in problem


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "mistral", "mixtral", "phi3", "deepseek_v3"])
def test_a_configuration_whose_model_can_be_masked_is_accepted(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    assert miniature(str(tmp_path)) is not None
    assert document_mask_problem(str(tmp_path)) is None


def test_a_configuration_that_cannot_be_made_small_is_left_to_the_loading_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such"}')
    assert document_mask_problem(str(tmp_path)) is None
