"""What is wrong with a model folder is found before any work, whatever it is, and said with file, value and fix."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import bert_shape, write_architecture
from safetensors.torch import load_file, save_file
from tiny import LENGTH
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertLMHeadModel, RobertaConfig, RobertaForCausalLM

from velocitune_core.model.fits_data import Fit
from velocitune_core.model.folder import ModelError, look_into_folder
from velocitune_core.model.headers import links_to_nothing
from velocitune_core.model.io import load_model
from velocitune_core.model.opened import open_model
from velocitune_core.model.trainable import check_trainable
from velocitune_core.parallel.ranks import join_ranks
from velocitune_core.train.placement import loaded_loss

Weights = dict[str, torch.Tensor]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


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


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = {name: tensor.clone() for name, tensor in change(load_file(folder / "model.safetensors")).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "mixtral"])
def test_good_folders_have_no_problem(originals: Path, name: str) -> None:
    assert found_in(originals / name) == Fit()


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda weights: {k: v for k, v in weights.items() if part not in k})


def prefixed(folder: Path) -> None:
    rewrite(folder, lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()})


def without_head_class(folder: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(folder)


def one_layer_more(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {k.replace("layers.1", "layers.2"): v for k, v in weights.items()})


def biases_without_a_place(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)})


def smaller_vocabulary(folder: Path) -> None:
    configure(folder, vocab_size=50)


def not_a_number(folder: Path) -> None:
    def change(weights: Weights) -> Weights:
        weights["model.norm.weight"][3] = float("nan")
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("-inf")
        return weights

    rewrite(folder, change)


def bytes_as_weights(folder: Path) -> None:
    rewrite(folder, lambda weights: {k: v.to(torch.float8_e4m3fn) if v.dim() > 1 else v for k, v in weights.items()})


def quantised(folder: Path) -> None:
    """Named in config.json, and stored so: one mistake."""
    bytes_as_weights(folder)
    configure(folder, quantization_config={"quant_method": "fp8"})


def pointers(folder: Path) -> None:
    """Of a clone without git-lfs: every large file."""
    (folder / "model.safetensors").write_text(LFS)
    (folder / "tokenizer.json").write_text(LFS)


def cut_off(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def split(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink()


def shard_missing(folder: Path) -> None:
    split(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def index_missing(folder: Path) -> None:
    split(folder)
    (folder / "model.safetensors.index.json").unlink()


def index_of_another(folder: Path) -> None:
    split(folder)
    index = folder / "model.safetensors.index.json"
    tree = json.loads(index.read_text())
    tree["weight_map"]["model.layers.7.mlp.up_proj.weight"] = next(iter(tree["weight_map"].values()))
    index.write_text(json.dumps(tree))


def shards_of_two_versions(folder: Path) -> None:
    split(folder)
    first, second, *_ = sorted(folder.glob("model-*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor + 1}, second, metadata={"format": "pt"})


def a_name_twice(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    names = list(load_file(folder / "model.safetensors"))
    one, other = next((one, other) for one in names for other in names if one < other and len(one) == len(other))
    (folder / "model.safetensors").write_bytes(content.replace(f'"{one}"'.encode(), f'"{other}"'.encode(), 1))


def link_to_nothing(name: str) -> Callable[[Path], None]:
    """As in a cache of the hub of which only the snapshot was copied."""

    def link(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/4d7a")

    return link


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def other_class(kind: Any) -> Callable[[Path], None]:
    config, made = kind

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        made(config(**bert_shape())).save_pretrained(folder)

    return write


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "shards of two versions": (shards_of_two_versions, r"1 tensors in several files \(lm_head\.weight; .* one version"),
    "a name twice": (a_name_twice, r"model\.safetensors: its header is not one of safetensors; download it again"),
    "link of weights": (
        link_to_nothing("model.safetensors"),
        r"links to nothing: model\.safetensors → \.\./\.\./blobs/4d7a",
    ),
    "link of config": (
        link_to_nothing("config.json"),
        r"links to nothing: config\.json → .*; download the model again",
    ),
    "no output matrix": (without("lm_head"), r"lacks 1 weights of its model \(lm_head\.weight\); they would be random"),
    "no second layer": (without("layers.1."), r"lacks 11 weights of its model \(model\.layers\.1\.input_layernorm"),
    "prefix": (prefixed, r"lacks 25 weights .* and has module\.lm_head\.weight, .* in their place"),
    "from AutoModel": (without_head_class, r"lacks 1 weights of its model \(lm_head\.weight\).*AutoModelForCausalLM"),
    "a layer more": (one_layer_more, r"11 weights inside the model that its config\.json has no place for"),
    "biases": (biases_without_a_place, r"no place for \(model\.layers\.0\.self_attn\.q_proj\.bias\)"),
    "sizes": (smaller_vocabulary, r"2 weights of another size .*lm_head\.weight: 64×16, not 50×16"),
    "NaN": (
        not_a_number,
        r"NaN or infinite weights in 2 tensors \(model\.layers\.1\.mlp\.up_proj\.weight, ",
    ),
    "bytes": (bytes_as_weights, r"stores \d+ matrices as F8_E4M3 .* quantised weights cannot be trained"),
    "quantised": (quantised, r"quantization_config \(quant_method 'fp8'\)"),
    "pointers": (
        pointers,
        r"model\.safetensors, tokenizer\.json are git-LFS pointers in place .*git lfs pull",
    ),
    "cut off": (cut_off, r"model\.safetensors: cut off: its header describes [\d,]+ bytes, and it has [\d,]+"),
    "a shard missing": (shard_missing, r"lacks model-00002-of-\d+\.safetensors of its model\.safetensors\.index\.json"),
    "no index": (index_missing, r"shards \(model-00001.* and no model\.safetensors\.index\.json"),
    "another's index": (index_of_another, r"lists 1 tensors that its shards do not have: model\.layers\.7"),
    "adapter": (adapter, r"holds an adapter, not a model; merge it"),
    "own code": (
        lambda folder: configure(folder, model_type="stranger", auto_map={"AutoConfig": "a.B"}),
        r"needs code of its own .* none of a folder's code is run",
    ),
    "unknown": (lambda folder: configure(folder, model_type="stranger"), r"model_type 'stranger' is unknown"),
    "T5": (lambda folder: configure(folder, model_type="t5"), r"another kind of model .*\(T5Config\)"),
    "BERT": (other_class((BertConfig, BertLMHeadModel)), r"a bert model that sees later tokens .*is_decoder"),
    "RoBERTa": (other_class((RobertaConfig, RobertaForCausalLM)), r"a roberta model that sees later tokens"),
}


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


def older(folder: Path) -> None:
    """As DialoGPT, Pythia and CodeGen are on the hub: with masks, of which -1e9 is infinite in half precision."""
    masks = {
        "attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
        "attn.masked_bias": torch.tensor(-1e9).half(),
        "attn.causal_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        "attn.rotary_emb.inv_freq": torch.ones(4),
    }
    rewrite(folder, lambda weights: weights | {f"transformer.h.0.{name}": mask for name, mask in masks.items()})


def pointers_of_other_formats(folder: Path) -> None:
    """Of `git lfs pull --include '*.safetensors'`."""
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (folder / name).write_text(LFS)


def copy_in_two_shards(folder: Path) -> None:
    split(folder)
    first, second, *_ = sorted(folder.glob("model-*.safetensors"))
    save_file(load_file(second) | load_file(first), second, metadata={"format": "pt"})


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
    with pytest.raises(ModelError, match="sees later tokens"):
        loaded_loss(str(model), "float32", join_ranks(), lambda made: made)
