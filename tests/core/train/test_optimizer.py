"""Which parameters are decayed, and optimizer state that exists before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import shape_of
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from velocitune_core.checkpoint.state import train_state
from velocitune_core.checkpoint.store import load_checkpoint, read_tensors, save_checkpoint
from velocitune_core.config import Optimizer
from velocitune_core.train.optimizer import build_optimizer, initialise_state, parameter_groups


class Experts(nn.Module):
    """A layer that is used, and an expert that no token is routed to."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))

    def forward(self, values: Tensor) -> Tensor:
        return self.used(values)


def optimizer_of(model: Any, **settings: Any) -> torch.optim.AdamW:
    return build_optimizer(model, Optimizer(**{"learning_rate": 1e-2, "weight_decay": 0.1} | settings))


def steps(model: Experts, optimizer: torch.optim.Optimizer, start: int, count: int) -> None:
    for number in range(start, start + count):
        model(torch.randn(5, 4, generator=torch.Generator().manual_seed(number))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_matrices_alone_are_decayed() -> None:
    model: Any = Experts()
    model.used.bias.requires_grad_(False)
    decayed, others = parameter_groups(model, 0.3)
    assert [each.shape for each in decayed["params"]] == [(3, 4), (3, 4)] and decayed["weight_decay"] == 0.3
    assert others["params"] == [model.unused.bias] and others["weight_decay"] == 0.0


def test_embeddings_of_tokens_and_learned_positions_can_be_left_out() -> None:
    model = AutoModelForCausalLM.from_config(shape_of("gpt2"))
    decayed, others = parameter_groups(model, 0.3, "matrices_without_embeddings")
    tables = {model.transformer.wte.weight, model.transformer.wpe.weight}  # the first is the output matrix too
    assert tables <= set(others["params"]) and others["weight_decay"] == 0.0
    matrices = {each for each in model.parameters() if each.ndim == 2}
    assert set(decayed["params"]) == matrices - tables
    (everything,) = parameter_groups(model, 0.3, "all")
    assert set(everything["params"]) == set(model.parameters()) and everything["weight_decay"] == 0.3


def test_epsilon_is_that_of_the_settings() -> None:
    model = Experts()
    assert optimizer_of(model).defaults["eps"] == 1e-8
    assert optimizer_of(model, epsilon=1e-15).defaults["eps"] == 1e-15


def test_settings_that_were_added_later_leave_the_identity_of_recipes_as_it_was() -> None:
    assert {"epsilon", "weight_decay_on"}.isdisjoint(Optimizer(learning_rate=1e-2).model_dump())
    chosen = Optimizer(learning_rate=1e-2, epsilon=1e-6, weight_decay_on="all").model_dump()
    assert (chosen["epsilon"], chosen["weight_decay_on"]) == (1e-6, "all")


def test_the_report_states_every_setting() -> None:
    assert Optimizer(learning_rate=1.5e-3, weight_decay_on="matrices_without_embeddings").text() == (
        "AdamW, peak learning rate 0.0015, betas 0.9 and 0.95, epsilon 1e-08, weight decay 0.1 on matrices without "
        "embeddings, gradients clipped at norm 1"
    )


def test_a_checkpoint_leaves_the_state_of_a_parameter_without_gradients_as_it_is(tmp_path: Path) -> None:
    """State made at the first checkpoint, by a step of zero gradients, would set every counter to 0 and decay the
    moments of all other parameters."""
    model, undisturbed = Experts(), Experts()
    optimizer, plain = optimizer_of(model), optimizer_of(undisturbed)
    initialise_state(optimizer)
    steps(model, optimizer, 0, 50)
    steps(undisturbed, plain, 0, 50)

    path = save_checkpoint(tmp_path, 50, train_state(model, optimizer), {}, keep=1)  # type: ignore[arg-type]

    assert [optimizer.state[each]["step"].item() for each in model.parameters()] == [50, 50, 0, 0]
    for ours, theirs in zip(model.used.parameters(), undisturbed.used.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for key, value in plain.state[theirs].items():
            assert torch.equal(optimizer.state[ours][key], value), key

    resumed = Experts()
    continued = optimizer_of(resumed)
    initialise_state(continued)
    read_tensors(load_checkpoint(path), train_state(resumed, continued))  # type: ignore[arg-type]
    steps(resumed, continued, 50, 10)
    steps(undisturbed, plain, 50, 10)
    for ours, theirs in zip(resumed.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_initialising_changes_no_parameter_and_happens_once() -> None:
    model = Experts()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = optimizer_of(model)
    initialise_state(optimizer)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert all(not value.any() for state in optimizer.state.values() for value in state.values())
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-2]
    steps(model, optimizer, 0, 3)
    moments = optimizer.state[model.used.weight]["exp_avg"].clone()
    initialise_state(optimizer)
    assert torch.equal(optimizer.state[model.used.weight]["exp_avg"], moments)


def test_state_is_not_made_while_gradients_wait_for_a_step() -> None:
    model = Experts()
    optimizer = optimizer_of(model)
    model(torch.ones(1, 4)).sum().backward()
    with pytest.raises(AssertionError, match="gradients would be lost"):
        initialise_state(optimizer)


def test_a_parameter_without_state_is_no_checkpoint() -> None:
    model: Any = Experts()
    optimizer = optimizer_of(model)
    steps(model, optimizer, 0, 1)
    with pytest.raises(AssertionError, match=r"unused\.weight has no optimizer state"):
        train_state(model, optimizer)
