"""What is wrong with a model folder is found before any work, whatever it is, and said with file, value and fix."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import write_architecture
from model_faults import (
    FAULTS,
    copy_in_two_shards,
    not_a_number,
    older,
    other_class,
    pointers_of_other_formats,
    rewrite,
    without,
)
from tiny import LENGTH
from transformers import BertConfig, BertLMHeadModel

from velocitune_core.model.fits_data import Fit
from velocitune_core.model.folder import ModelError, look_into_folder
from velocitune_core.model.headers import links_to_nothing
from velocitune_core.model.io import load_model
from velocitune_core.model.opened import open_model
from velocitune_core.model.trainable import check_trainable
from velocitune_core.parallel.ranks import join_ranks
from velocitune_core.train.placement import loaded_loss


@pytest.fixture(scope="module")
def originals(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for name in ("qwen3", "gpt2", "mixtral"):
        write_architecture(name, folder, tiny_inputs / "model")
    return folder


@pytest.fixture
def model(originals: Path, tmp_path: Path) -> Path:
    """Two layers, output matrix not tied."""
    return shutil.copytree(originals / "qwen3", tmp_path / "model")


def found_in(folder: Path) -> Fit:
    """What the checks before any work find."""
    stored, untrainable = look_into_folder(str(folder)), check_trainable(str(folder))
    if stored.problems or untrainable:
        return Fit([*stored.problems, *untrainable])
    return open_model(str(folder), stored.tensors, document_mask=True, sequence_length=LENGTH)


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "mixtral"])
def test_good_folders_have_no_problem(originals: Path, name: str) -> None:
    assert found_in(originals / name) == Fit()


@pytest.mark.parametrize(("change", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_one_line_with_its_remedy(
    model: Path, change: Callable[[Path], None], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(model)
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(model.parent)
        (problem,) = found_in(Path("model")).problems
    assert problem.startswith("model.path: model")
    assert re.search(expected, problem), problem
    assert "REPORT" not in capfd.readouterr().err, "transformers' own table of the same"


def test_the_table_of_transformers_reaches_no_handler_of_others(model: Path) -> None:
    """Where CI is set, transformers passes its records on to the root's handlers, the console's among them."""
    reached: list[logging.LogRecord] = []  # not by caplog, whose handler pytest adds to transformers' logger too

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reached.append(record)

    logger, handler = logging.getLogger("transformers"), Listener()
    logging.getLogger().addHandler(handler)
    before, logger.propagate = logger.propagate, True
    try:
        without("lm_head")(model)
        assert found_in(model).problems
        assert not reached
        assert logger.propagate
    finally:
        logger.propagate = before
        logging.getLogger().removeHandler(handler)


def test_all_faults_of_weights_are_found_at_once(model: Path) -> None:
    without("lm_head")(model)
    not_a_number(model)
    assert [line.split(" ")[2] for line in found_in(model).problems] == ["lacks", "has"]


def test_an_expert_that_is_incomplete_is_named(originals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(originals / "mixtral", tmp_path / "mixtral")
    without("layers.0.block_sparse_moe.experts.2.w1")(folder)
    (problem,) = found_in(folder).problems
    assert "lacks parts of model.layers.0.mlp.experts.gate_up_proj" in problem


def test_a_head_that_a_causal_model_does_not_have_is_warned_of(model: Path) -> None:
    rewrite(model, lambda weights: weights | {"v_head.weight": torch.zeros(1, 16)})
    fit = found_in(model)
    assert fit.problems == [] and "v_head.weight" in fit.warnings[0] and "neither trained nor saved" in fit.warnings[0]


@pytest.mark.parametrize("add", [older, pointers_of_other_formats, copy_in_two_shards])
def test_what_folders_of_the_hub_have_beside_the_weights_is_no_problem(
    originals: Path, tmp_path: Path, add: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(originals / "gpt2", tmp_path / "gpt2")
    add(folder)
    assert found_in(folder) == Fit()


def test_a_link_to_nothing_in_a_clone_is_refused_only_where_dvc_would_follow_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "lock").symlink_to("nothing")
    assert "links to nothing: .git/lock → nothing" in links_to_nothing(str(model))[0]
    monkeypatch.chdir(model.parent)
    assert links_to_nothing("model") == []


def test_no_training_starts_with_random_weights_or_later_tokens(model: Path) -> None:
    """Where no check came before, as with a job that was written by hand."""
    without("lm_head")(model)
    with pytest.raises(ModelError, match=r"lacks 1 weights of its model \(lm_head\.weight\)"):
        load_model(str(model))
    other_class((BertConfig, BertLMHeadModel))(model)
    with pytest.raises(ModelError, match="uses later tokens"):
        loaded_loss(str(model), "float32", join_ranks(), lambda made: made)
