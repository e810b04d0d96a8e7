"""Faults of a model folder, each with its line of a refusal, and what folders of the hub have beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from architectures import bert_shape
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertLMHeadModel, RobertaConfig, RobertaForCausalLM

Weights = dict[str, torch.Tensor]

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = {name: tensor.clone() for name, tensor in change(load_file(folder / "model.safetensors")).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


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
    "BERT": (other_class((BertConfig, BertLMHeadModel)), r"a bert model that uses later tokens .*is_decoder"),
    "RoBERTa": (other_class((RobertaConfig, RobertaForCausalLM)), r"a roberta model that uses later tokens"),
}


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
