"""Sizes of the data that a plan rests on: from its files, or from text that is packed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
import zstandard
from plan_samples import SEVEN_BILLION, plan_of, write_config
from pyarrow import parquet
from tiny import write_inputs

from tasks.planning.inputs import read_inputs
from tasks.planning.source_sizes import text_bytes
from tasks.planning.view import size_text
from tasks.runs.jobs import proxy_jobs
from tasks.workspace import paths, said_once
from tasks.workspace.evaluations import warn_of_evaluations
from velocitune_core.config import ConfigError, Params, Source, parse_params
from velocitune_core.contracts import Manifest
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.model.tokenizer import load_tokenizer


@pytest.mark.usefixtures("workspace")
def test_a_domain_of_unknown_size_is_refused_with_what_to_do(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    with pytest.raises(ConfigError, match=r"domains.code: its size is unknown.*\n.*domains.law: its size is unknown"):
        plan_of(settings)


@pytest.mark.usefixtures("workspace")
def test_sizes_are_estimated_from_files(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["domains"]["law"]["max_tokens"] = 5_000
    folder = Path("data/raw")
    folder.mkdir(parents=True)
    (folder / "code.jsonl").write_bytes(b"x" * 400_000)
    inputs = read_inputs(parse_params(settings))
    tokens = {name: domain.train.tokens for name, domain in inputs.manifest.domains.items()}
    assert tokens == {"code": 90_000 // 64 * 64, "law": 5_000 // 64 * 64}  # a tenth is held out
    assert any("max_tokens" in line for line in inputs.assumptions)


@pytest.mark.usefixtures("workspace")
def test_a_prepared_manifest_is_used_unless_the_settings_differ(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000
    made = read_inputs(parse_params(settings)).manifest
    larger = made.domains["code"].train.model_copy(update={"sequences": 7_777})
    domains = made.domains | {"code": made.domains["code"].model_copy(update={"train": larger})}
    made.model_copy(update={"domains": domains}).write(paths.MANIFEST)
    assert read_inputs(parse_params(settings)).manifest == Manifest.read(paths.MANIFEST)


@pytest.fixture
def packed(settings: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """Settings whose manifest says that 100 sequences of `code` and of `law` are packed, from a file each."""
    write_inputs(workspace / "made")
    settings["model"]["path"] = "made/model"
    (workspace / "data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        (workspace / f"data/raw/{name}.jsonl").write_bytes(b"x" * 25_600)
    params = parse_params(settings)
    made = read_inputs(params).manifest
    train = made.domains["code"].train.model_copy(update={"sequences": 100, "tokens": 6_400})
    domains = {name: domain.model_copy(update={"train": train}) for name, domain in made.domains.items()}
    digest = tokenizer_digest(load_tokenizer("made/model"))
    made.model_copy(update={"domains": domains, "tokenizer_sha256": digest}).write(paths.MANIFEST)
    assert read_inputs(params).manifest.domains == domains
    return settings


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("data", {"sequence_length": 128}),
        ("data", {"path": "data"}),
        ("data", {"min_characters": 2}),
        ("data", {"held_out_fraction": 0.2}),
        ("code", {"max_tokens": 640}),
        ("code", {"source": {"type": "jsonl", "path": "nowhere.jsonl"}}),
        ("code", {"source": {"type": "text", "path": "code.jsonl"}}),
        ("domains", {"more": {"source": {"type": "jsonl", "path": "code.jsonl"}}}),
        ("domains", {"more": {"source": {"type": "jsonl", "path": "code.jsonl"}, "measure_only": True}}),
    ],
)
def test_a_manifest_of_other_settings_is_not_used(packed: dict[str, Any], section: str, change: dict[str, Any]) -> None:
    (packed["domains"][section] if section == "code" else packed[section]).update(change)
    packed["training"]["token_budget"] = 64_000
    inputs = read_inputs(parse_params(packed))
    assert all(domain.train.sequences != 100 for domain in inputs.manifest.domains.values())
    assert inputs.assumptions[0].startswith("prepared/manifest.json") and "is not used" in inputs.assumptions[0]


def test_a_manifest_of_an_earlier_version_is_said_to_be_one(packed: dict[str, Any]) -> None:
    manifest = json.loads(paths.MANIFEST.read_text())
    for domain in manifest["domains"].values():
        domain.pop("settings_sha256")
    paths.MANIFEST.write_text(json.dumps(manifest))
    assert (
        "by an earlier version (the stage prepare makes it again)" in read_inputs(parse_params(packed)).assumptions[0]
    )


def test_a_manifest_of_other_files_or_another_tokenizer_is_not_used(packed: dict[str, Any]) -> None:
    params = parse_params(packed)
    Path("data/raw/law.jsonl").touch()  # a copy of the data has other times
    assert read_inputs(params).manifest.domains["law"].train.sequences == 100
    with Path("data/raw/law.jsonl").open("ab") as file:
        file.write(b"more")
    assert "or with another tokenizer, for law, and is not used" in read_inputs(params).assumptions[0]
    tokenizer = Path("made/model/tokenizer.json")
    tokenizer.write_text(tokenizer.read_text().replace("word3", "word-3"))
    assert "or with another tokenizer, for code and law, and is not used" in read_inputs(params).assumptions[0]


TOKEN = "<|endoftext|>"


@pytest.mark.parametrize("model", ["made/model", "models/base"])
@pytest.mark.parametrize(
    ("changes", "described"),
    [
        ({}, f"start none, end {TOKEN}, attention across documents"),
        ({"document_start": TOKEN, "document_mask": True}, f"start {TOKEN}, end none, attention inside each document"),
        ({"document_end": None}, "start none, end none, attention across documents"),
    ],
)
def test_a_plan_says_what_will_stand_around_documents(
    settings: dict[str, Any], workspace: Path, model: str, changes: dict[str, Any], described: str
) -> None:
    write_inputs(workspace / "made")
    settings["model"]["path"] = model
    settings["base"] = {"vocabulary_size": 300, "training": {**settings["training"], "token_budget": 64_000}}
    settings["training"]["token_budget"] = 64_000
    for name in settings["domains"]:
        settings["domains"][name]["max_tokens"] = 64_000
    settings["data"] |= changes
    assert plan_of(settings).documents == described


def test_a_plan_of_packed_text_has_the_attention_of_the_settings(packed: dict[str, Any]) -> None:
    packed["data"]["document_mask"] = True
    documents = read_inputs(parse_params(packed)).manifest.documents
    assert documents.mask and not Manifest.read(paths.MANIFEST).documents.mask


def test_a_warning_of_few_updates_is_of_these_settings(
    packed: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 sequences in batches of 16 are 12 steps, with an evaluation every 5."""
    monkeypatch.setattr(said_once, "_said", set())
    warn_of_evaluations(parse_params({**packed, "data": {**packed["data"], "min_characters": 2}}))
    assert not caplog.messages
    warn_of_evaluations(parse_params(packed))
    assert len(caplog.messages) == 1 and "in 12 steps" in caplog.messages[0]


def test_jobs_from_a_stand_in_equal_those_from_a_manifest(settings: dict[str, Any], workspace: Path) -> None:
    """The plan makes its proxies by the stage's own code, without the hash of the parameters."""
    write_inputs(workspace / "made")
    settings |= {"model": {"path": "made/model"}}
    settings["training"]["token_budget"] = 64_000
    params: Params = parse_params(yaml.safe_load(yaml.safe_dump(settings)))
    manifest = read_inputs(params).manifest
    hashed, unhashed = proxy_jobs(params, manifest), proxy_jobs(params, manifest, "")
    assert [job.model_copy(update={"model_sha256": ""}) for job in hashed] == unhashed


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1_500_000, "1.5 MB"), (80e9, "80.0 GB"), (5e15, "5,000.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.usefixtures("workspace")
def test_compressed_files_and_parquet_are_sized(settings: dict[str, Any]) -> None:
    rows = [json.dumps({"text": f"{number} " * 50}) for number in range(2_000)]
    plain = "\n".join(rows).encode()
    folder = Path("data/raw")
    folder.mkdir(parents=True)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(plain))
    column = [f"{number} " * 50 for number in range(2_000)]
    parquet.write_table(pyarrow.table({"text": column, "other": ["x" * 500] * 2_000}), folder / "c.parquet")
    (folder / "texts").mkdir()
    (folder / "texts/one.rst").write_bytes(plain)

    def size(kind: str, path: str) -> int:
        return text_bytes(Source.model_validate({"type": kind, "path": path}), folder)

    assert size("jsonl", "a.jsonl.gz") == size("jsonl", "b.jsonl.zst") == size("text", "texts") == len(plain)
    assert size("parquet", "c.parquet") == pytest.approx(sum(map(len, column)), rel=0.1)
    (folder / "a.jsonl.gz").write_bytes(b"no gzip")
    assert size("jsonl", "a.jsonl.gz") == 0 == size("jsonl", "missing.jsonl")
