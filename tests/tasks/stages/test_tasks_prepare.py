"""The stage `prepare`: warnings of malformed rows, reuse after a failure, and detection of altered files."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny import write_inputs

from tasks.runs.verify_data import check_packed
from tasks.stages.prepare import all_packed, pack, read_through, write_manifest
from tasks.views.terminal import PackingBar
from tasks.workspace import paths, said_once
from tasks.workspace.data_folder import unwatched_files_changed
from tasks.workspace.source_rows import refuse_unreadable, unread_sources
from velocitune_core.config import ConfigError, Domain, Params, Source, parse_params
from velocitune_core.contracts import DomainManifest, Manifest
from velocitune_core.data.packing.progress import Progress
from velocitune_core.data.sources import SourceError
from velocitune_core.data.tokenize import PackingError
from velocitune_core.files import file_sha256


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two domains in real files, and a model folder with a tokenizer of 64 words."""
    monkeypatch.setattr(said_once, "_said", set())
    inputs = workspace / "models"
    inputs.mkdir()
    write_inputs(inputs)
    settings["model"]["path"] = "models/model"
    settings["data"] |= {"sequence_length": 16, "min_characters": 1, "held_out_fraction": 0.3}
    raw = workspace / "data/raw"
    raw.mkdir(parents=True)
    for name in ("code", "law"):
        rows = (f"word{1 + number % 60} word{1 + number // 60} word{number % 7} {name} " * 8 for number in range(300))
        (raw / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return parse_params(settings)


def add_malformed(name: str, rows: int) -> None:
    with Path(f"data/raw/{name}.jsonl").open("a") as file:
        file.write("{\n" * rows)


def allowing(params: Params, rows: int) -> Params:
    return params.model_copy(update={"data": params.data.model_copy(update={"max_malformed_rows": rows})})


def read_all(params: Params) -> list[str]:
    """Read the sources as flows.prepare does; return which of them."""
    unread = unread_sources(params)
    refuse_unreadable([read_through.fn(name, params) for name in unread])
    return unread


def test_malformed_rows_up_to_the_limit_are_logged_and_counted(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    clean = pack.fn("code", params)
    add_malformed("code", 12)
    with pytest.raises(SourceError, match=r"12 malformed rows in all, data\.max_malformed_rows allows 11"):
        read_all(allowing(params, 11))
    with pytest.raises(SourceError, match="12 malformed rows in all"):
        pack.fn("code", allowing(params, 11))
    with caplog.at_level(logging.WARNING, "tasks"):
        assert read_all(allowing(params, 12)) == ["code"]
        packed = pack.fn("code", allowing(params, 12))
    assert packed == clean.model_copy(update={"malformed": 12, "settings_sha256": packed.settings_sha256})
    assert caplog.text.count("skipped 12 malformed rows:") == 1  # not for each stage that reads them
    assert "code.jsonl:301: not JSON" in caplog.text
    with pytest.raises(SourceError, match="allows 0"):  # packed under a higher limit, so not reused
        pack.fn("code", params)


def test_problems_of_all_sources_are_one_message_before_any_work(params: Params) -> None:
    params.domains["more"] = Domain(source=Source(type="jsonl", path="more"))
    folder = Path("data/raw/more")
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"text": "word1"}\n' * 1000)[:-12])
    params.domains["none"] = Domain(source=Source(type="jsonl", path="none.jsonl"))
    Path("data/raw/none.jsonl").write_text("\n")
    add_malformed("code", 3)
    add_malformed("law", 1)
    with pytest.raises(SourceError) as caught:
        read_all(allowing(params, 2))
    said = str(caught.value)
    assert "3 malformed rows in all, data.max_malformed_rows allows 2" in said and "law" not in said  # one is allowed
    for place in ("code.jsonl:301", "code.jsonl:303", "a.jsonl.gz: cannot be read", "b.jsonl.gz: cannot be read"):
        assert place in said
    assert "domain 'none': its source has no documents" in said
    assert "domain 'code':\n  data/raw/code.jsonl:301: not JSON" in said
    assert not paths.PACKING.exists()


def test_a_source_is_read_again_only_if_it_or_the_limit_has_changed(
    params: Params, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_malformed("law", 1)
    allowed = allowing(params, 1)
    assert (read_all(allowed), read_all(allowed)) == (["code", "law"], [])
    monkeypatch.setattr(said_once, "_said", set())
    with caplog.at_level(logging.WARNING, "tasks"):
        assert read_all(allowed) == []
    assert "law: skipped 1 malformed row:\n" in caplog.text  # by the next command, too
    with pytest.raises(SourceError, match="allows 0"):
        read_all(params)
    assert read_all(allowed) == ["law"]
    add_malformed("code", 1)
    assert read_all(allowed) == ["code"]
    paths.READ_SOURCES.write_text("{")
    assert read_all(allowed) == ["code", "law"]


def test_what_only_packing_can_find_is_reported_of_all_domains(params: Params) -> None:
    for name in ("code", "law"):
        Path(f"data/raw/{name}.jsonl").write_text('{"text": "word1"}\n')
    failed: list[DomainManifest | BaseException] = []
    for name in ("code", "law"):
        with pytest.raises(PackingError) as caught:
            pack.fn(name, params)
        failed.append(caught.value)
    with pytest.raises(PackingError, match=r"(?s)domain 'code'.*domain 'law'"):
        all_packed(["code", "law"], failed)
    with pytest.raises(OSError, match="disk"):
        all_packed(["code", "law"], [failed[0], OSError("disk")])


def test_a_manifest_without_that_count_is_valid(params: Params) -> None:
    tree = json.loads(pack.fn("code", params).model_dump_json())
    del tree["malformed"]
    assert DomainManifest.model_validate(tree).malformed == 0


def test_a_packed_domain_is_reused_after_another_one_failed(params: Params, caplog: pytest.LogCaptureFixture) -> None:
    add_malformed("law", 1)
    pack.fn("code", params)
    with pytest.raises(SourceError):
        pack.fn("law", params)
    train = paths.PACKING / "code/train.npy"
    before = train.stat().st_ino
    with caplog.at_level(logging.INFO, "tasks"):
        pack.fn("code", params)
    assert "code: already packed in runs/packing/code" in caplog.text
    packed = {"code": pack.fn("code", params), "law": pack.fn("law", allowing(params, 1))}
    assert train.stat().st_ino == before
    manifest = write_manifest.fn(params, packed)
    assert manifest.documents.described() == "start none, end <|endoftext|>, attention across documents"
    assert (paths.PREPARED / "code/train.npy").stat().st_ino == before
    assert Manifest.read(paths.MANIFEST) == manifest
    assert not paths.PACKING.exists()


@pytest.mark.parametrize("kind", ["jsonl", "datasets"])
def test_text_that_dvc_does_not_watch_is_packed_again_once_it_is_replaced(params: Params, kind: str) -> None:
    def write(text: str) -> None:
        Path("elsewhere").mkdir(exist_ok=True)
        rows = [f"{text}{number} word1" for number in range(100)]
        if kind == "datasets":
            Dataset.from_dict({"text": rows}).save_to_disk("elsewhere/code")
        else:
            Path("elsewhere/code.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    write("word2 word")
    Path("data/raw/linked").symlink_to("../../elsewhere")
    path = "linked/code" if kind == "datasets" else "linked"
    params.domains["code"] = Domain(source=Source(type=kind, path=path))
    write_manifest.fn(params, {name: pack.fn(name, params) for name in ("code", "law")})
    assert not unwatched_files_changed(params)
    write("word3 word")
    assert unwatched_files_changed(params)


def test_an_altered_packed_file_is_detected_and_named(params: Params) -> None:
    manifest = write_manifest.fn(params, {name: pack.fn(name, params) for name in ("code", "law")})
    files = [(paths.PREPARED / domain.train.file, domain.train.sha256) for domain in manifest.domains.values()]
    check_packed(files)
    with files[1][0].open("r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(
        ConfigError, match=r"prepared/law/train\.npy: not the file that `prepare` wrote.*run the stage `prepare`"
    ):
        check_packed(files)
    assert file_sha256(files[1][0]) != files[1][1]


def test_a_resumed_packing_logs_the_document(caplog: pytest.LogCaptureFixture) -> None:
    bar = PackingBar("code", None)
    with caplog.at_level(logging.INFO, "tasks"):
        bar(Progress(documents=12_000, tokens=640, resumed_at=12_000, tokenised=0))
    bar.close()
    assert "resuming code at document 12,000" in caplog.text
