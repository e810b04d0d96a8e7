"""The embedded base model: its tokenizer sees no held-out text, and models/base is replaced by a finished run only."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counted_hub import COMMIT, CountedHub
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

from tasks.planning.build import make_plan
from tasks.planning.packed_base import finished_of_base
from tasks.runs.jobs import base_job
from tasks.runs.launch import TrainingFailedError
from tasks.runs.run_folder import run_folder
from tasks.stages.base import (
    PACKED,
    UNTRAINED,
    build_untrained,
    has_sibling,
    pack_base,
    train_base,
    train_sibling,
)
from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.data.splits import document_digest, is_held_out
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.train.job import TrainJob

HELD_OUT_FRACTION = 0.3


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any], no_views: Callable[[str], None]) -> Params:
    """Two domains of which the base takes one; each document holds a word of its own, which a tokenizer may learn."""
    no_views("tasks.stages.base")
    raw = workspace / "data/raw"
    raw.mkdir(parents=True)
    for name in ("code", "law"):
        (raw / f"{name}.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in documents(name)))
    settings["data"] |= {"sequence_length": 16, "min_characters": 1, "held_out_fraction": HELD_OUT_FRACTION}
    settings["domains"]["code"]["max_tokens"] = 100
    settings["model"]["path"] = "models/base"
    settings["resources"] = {"threads": 1}
    settings["base"] = {
        "domains": ["code"],
        "vocabulary_size": 1000,
        "hidden_size": 16,
        "intermediate_size": 32,
        "layers": 1,
        "heads": 2,
        "training": {"token_budget": 1280, "optimizer": {"learning_rate": 0.01}, "precision": "float32"},
    }
    return parse_params(settings)


def documents(domain: str) -> list[str]:
    return [f"{domain} {word(number)} " * 40 for number in range(100)]


def word(number: int) -> str:
    """A word of three letters that no other number has."""
    return "".join(chr(ord("a") + number // 5**place % 5) for place in range(3)) * 2


def test_the_tokenizer_is_trained_on_training_documents_alone(params: Params) -> None:
    build_untrained.fn(params)
    vocabulary = " ".join(load_tokenizer(str(UNTRAINED)).get_vocab())
    held_out = [is_held_out(document_digest(text), HELD_OUT_FRACTION) for text in documents("code")]
    assert 10 < sum(held_out) < 50
    known = [word(number) in vocabulary for number in range(100)]
    assert all(known[number] for number in range(100) if not held_out[number])
    assert not any(known[number] for number in range(100) if held_out[number])
    assert "law" not in vocabulary


def test_the_base_is_packed_from_all_text_of_its_domains(params: Params) -> None:
    build_untrained.fn(params)
    packed = pack_base.fn(params)
    assert [*packed] == ["code"] and packed["code"].documents_read == 100
    assert packed["code"].train.tokens > 100  # the mixture's limit is not the base's
    assert (PACKED / packed["code"].train.file).is_file()


def test_of_text_on_the_hub_no_more_is_read_than_its_limit_needs(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tokenizer's training and by packing, each: what is there may be endless."""
    hub = CountedHub(documents("code"))
    hub.replace(monkeypatch)
    tree = params.model_dump()
    tree["domains"]["code"] |= {"source": {"type": "datasets", "path": "team/code"}, "max_tokens": 2000}
    changed = parse_params(tree)
    build_untrained.fn(changed)
    by_tokenizer = hub.read
    packed = pack_base.fn(changed)
    assert 0 < by_tokenizer < 500 and 0 < hub.read - by_tokenizer < 1500
    assert 0 < packed["code"].train.tokens <= 2000 and packed["code"].revision == COMMIT


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_the_trained_base_replaces_the_one_before(params: Params) -> None:
    build_untrained.fn(params)
    packed = pack_base.fn(params)
    paths.BASE_MODEL.mkdir(parents=True)
    (paths.BASE_MODEL / "stale").touch()
    result = train_base.fn(params, packed)
    assert result.steps == 5 and result.strategy == "static"  # 1,280 tokens of 16 sequences of 16
    assert not (paths.BASE_MODEL / "stale").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (UNTRAINED, paths.BASE_MODEL))
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    assert load_tokenizer(str(paths.BASE_MODEL)).get_vocab() == load_tokenizer(str(UNTRAINED)).get_vocab()


@pytest.mark.usefixtures("forked_program")
def test_a_sibling_is_a_smaller_model_beside_the_base_with_its_tokenizer(params: Params) -> None:
    assert not has_sibling(params)
    tree = params.model_dump()
    tree["base"]["sibling"] = {"hidden_size": 8, "intermediate_size": 16, "layers": 1, "heads": 2}
    changed = parse_params(tree)
    build_untrained.fn(changed)
    packed = pack_base.fn(changed)
    assert has_sibling(changed) and train_sibling.fn(changed, packed).steps == 5
    config = json.loads((paths.SIBLING_MODEL / "config.json").read_text())
    assert (config["hidden_size"], config["vocab_size"]) == (8, len(load_tokenizer(str(UNTRAINED))))
    assert load_tokenizer(str(paths.SIBLING_MODEL)).get_vocab() == load_tokenizer(str(UNTRAINED)).get_vocab()


def test_base_and_sibling_are_trained_elsewhere_with_the_attention_of_the_mixture(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that starts the training holds no model meanwhile."""
    seen: list[TrainJob] = []

    def run(job: TrainJob, *_: object) -> None:
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is LlamaForCausalLM]
        seen.append(job)
        shutil.copytree(job.model, run_folder(job) / "model")

    monkeypatch.setattr("tasks.stages.base.run_training", run)
    tree = params.model_dump()
    tree["base"]["sibling"] = {"hidden_size": 8, "intermediate_size": 16, "layers": 1, "heads": 2}
    for mask in (False, True):
        tree["data"]["document_mask"] = mask
        changed = parse_params(tree)
        build_untrained.fn(changed)
        packed = pack_base.fn(changed)
        for stage in (train_base, train_sibling):
            stage.fn(changed, packed)
    assert [(job.name, job.document_start) for job in seen] == [
        ("base", None),
        ("sibling", None),
        ("base", 0),
        ("sibling", 0),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_program")
def test_a_plan_counts_a_base_that_is_finished_under_these_settings_alone(params: Params) -> None:
    tree = params.model_dump()
    tree["base"]["vocabulary_size"], tree["training"]["token_budget"] = 300, 2560

    def finished(**changes: Any) -> int:
        return finished_of_base(parse_params({**tree, "base": {**tree["base"], **changes}}))

    made = parse_params(tree)
    build_untrained.fn(made)
    train_base.fn(made, pack_base.fn(made))
    stage = make_plan(made, probe=False).stages[0]
    assert (stage.name, stage.finished) == ("base", 1)
    assert finished_of_base(parse_params({**tree, "data": {**tree["data"], "document_mask": True}})) == 0
    assert finished(vocabulary_size=310) == finished(training={**tree["base"]["training"], "seed": 5}) == 0
    with Path("data/raw/code.jsonl").open("a") as file:
        file.write(json.dumps({"text": "another document"}))
    assert finished() == 0


@pytest.mark.usefixtures("forked_program")
def test_a_base_that_fails_leaves_the_one_before(params: Params) -> None:
    build_untrained.fn(params)
    packed = pack_base.fn(params)
    paths.BASE_MODEL.mkdir(parents=True)
    (paths.BASE_MODEL / "good").touch()
    folder = run_folder(base_job(params, UNTRAINED, packed, PACKED))
    folder.mkdir(parents=True)
    (folder / "model").touch()  # a file where the model must go
    with pytest.raises(TrainingFailedError, match="base"):
        train_base.fn(params, packed)
    assert [path.name for path in paths.BASE_MODEL.iterdir()] == ["good"]
