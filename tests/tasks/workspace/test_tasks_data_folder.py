"""What of a source is not read or not watched is said once, and what DVC cannot record is refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pytest import LogCaptureFixture
from result_samples import manifest

from tasks.workspace import paths, said_once
from tasks.workspace.data_folder import source_problems, unwatched_files_changed, warn_of_sources
from velocitune_core.config import Params, Source
from velocitune_core.data.sources import unwatched_digest

ROOT = Path("data/raw")
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two domains: `code`, a folder that links to one beside the workspace's data, and `law`, a file."""
    monkeypatch.setattr(said_once, "_said", set())
    Path("elsewhere").mkdir()
    Path("elsewhere/a.jsonl").write_text(json.dumps({"text": "a"}))
    (ROOT / "code").mkdir(parents=True)
    (ROOT / "code/linked").symlink_to("../../../elsewhere")
    (ROOT / "law.jsonl").write_text(json.dumps({"text": "b"}))
    settings["domains"]["code"]["source"]["path"] = "code"
    return Params.model_validate(settings)


def warnings(params: Params, caplog: LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_sources(params)
    return caplog.messages


def test_files_that_are_not_read_or_not_watched_are_named_once(params: Params, caplog: LogCaptureFixture) -> None:
    (ROOT / "code/notes.csv").touch()
    unread, unwatched = warnings(params, caplog)
    assert unread.startswith("domains.code: of its source, 1 file or part is not read: data/raw/code/notes.csv: not a")
    assert unwatched.startswith("domains.code: files outside data.path, or behind a linked folder in it. DVC does not")
    assert warnings(params, caplog) == []


def test_an_empty_file_is_named(params: Params, caplog: LogCaptureFixture) -> None:
    (ROOT / "code/nothing.jsonl").touch()
    unread, _ = warnings(params, caplog)
    assert unread == "domains.code: of its source, 1 file or part is not read: data/raw/code/nothing.jsonl: empty"


def test_every_type_of_source_outside_is_in_one_warning(params: Params, caplog: LogCaptureFixture) -> None:
    (ROOT / "set").symlink_to("../../elsewhere")
    domains = dict(params.domains)
    for kind, path in {"jsonl": "../../elsewhere/a.jsonl", "text": "code/linked", "datasets": "set"}.items():
        domains[kind] = domains["law"].model_copy(update={"source": Source(type=kind, path=path)})
    [warning] = warnings(params.model_copy(update={"domains": domains}), caplog)
    assert warning.startswith("domains.code, jsonl, text, datasets: files outside")


def test_links_to_nothing_and_names_that_dvc_cannot_record_are_refused(params: Params) -> None:
    assert source_problems(params) == []
    (ROOT / "gone").symlink_to("nowhere")
    Path(str(ROOT / "\udcff.txt")).touch()
    gone, odd = source_problems(params)
    assert gone == "data.path: data/raw/gone: links to nothing, which DVC cannot record; remove or repair them"
    assert odd.startswith(
        "data.path: 'data/raw/\\udcff.txt': names that are not UTF-8, which DVC cannot record; rename"
    )


def test_data_that_dvc_does_not_watch_make_the_packing_stale(params: Params) -> None:
    assert not unwatched_files_changed(params)  # nothing is packed
    digests = {name: unwatched_digest(domain.source, ROOT) for name, domain in params.domains.items()}
    assert digests["law"] is None
    sample = next(iter(manifest().domains.values()))
    packed = {name: sample.model_copy(update={"unwatched_sha256": digest}) for name, digest in digests.items()}
    paths.PREPARED.mkdir()
    manifest().model_copy(update={"domains": packed}).write(paths.MANIFEST)
    assert not unwatched_files_changed(params)
    Path("elsewhere/a.jsonl").write_text(json.dumps({"text": "replaced"}))
    assert unwatched_files_changed(params)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("prepared/mine", "prepared/mine is made by the stage `prepare`"),
        ("./results/../report", "results/../report is made by the stage `report`"),
        ("runs", "runs is made by runs of the pipeline"),
        (".", ". contains prepared, which is made by the stage `prepare`"),
        ("models", "models contains models/trained, which is made by the stage `train`"),
    ],
)
def test_text_inside_of_what_a_stage_makes_or_around_it_is_refused(params: Params, path: str, expected: str) -> None:
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    Path("comparison").mkdir()
    shutil.copyfile(PROJECT / "comparison/dvc.yaml", "comparison/dvc.yaml")
    data = params.data.model_copy(update={"path": path})
    [problem] = source_problems(params.model_copy(update={"data": data}))
    assert problem.startswith(f"data.path: {expected}, and") and problem.endswith("such as data/raw, and name that")


def test_a_source_that_leads_out_of_the_text_to_what_a_stage_makes_is_refused(params: Params) -> None:
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    name, first = next(iter(params.domains.items()))
    source = Source(type="jsonl", path=os.path.relpath("results/initial.json", params.data.path))
    domains = {**params.domains, name: first.model_copy(update={"source": source})}
    [problem] = source_problems(params.model_copy(update={"domains": domains}))
    assert problem.startswith(f"domains.{name}.source: ") and "is made by the stage `initial`, and the" in problem


def test_text_beside_what_only_the_embedded_mixture_makes_is_good(params: Params) -> None:
    """DVC does not see the stage `corpus` under another data.path."""
    Path("inputs/corpus").mkdir(parents=True)
    shutil.copyfile(PROJECT / "inputs/corpus/dvc.yaml", "inputs/corpus/dvc.yaml")
    shutil.move("data/raw", "data/embedded")
    domains = {
        name: each.model_copy(update={"source": Source(type="jsonl", path=f"embedded/{each.source.path}")})
        for name, each in params.domains.items()
    }
    data = params.data.model_copy(update={"path": "data"})
    assert source_problems(params.model_copy(update={"data": data, "domains": domains})) == []
