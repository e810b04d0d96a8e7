"""Any number of models on the same questions, from archive and folders to results/downstream.json."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from question_archive import TASKS, question, write_archive
from tiny import VOCABULARY

from tasks.runs.launch import TrainingFailedError
from tasks.stages.compare import _downstream
from tasks.stages.downstream import (
    RESULT,
    check_models,
    downstream_rows,
    evaluate_downstream,
    run_downstream,
    sample_questions,
    write_downstream,
)
from tasks.workspace import paths
from tasks.workspace.fresh import starting_over
from velocitune_core.config import Params, parse_params
from velocitune_core.contracts import DownstreamResult, Questions
from velocitune_core.data.sources import SourceError
from velocitune_core.evaluation.benchmark_tasks import DownstreamError
from velocitune_core.train.events import EvaluationStarted, read_events

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any], tiny_inputs: Path) -> Params:
    """A workspace with an archive of three tasks, two domains and a model; one question of `sums` is in a domain."""
    write_archive(paths.ARCHIVES)
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/code.jsonl").write_text(json.dumps({"text": "nothing of the kind"}) + "\n")
    Path("data/raw/law.jsonl").write_text(json.dumps({"text": "so: " + question("sums/gold_bpb_5shot", 2)}) + "\n")
    shutil.copytree(tiny_inputs / "model", "models/mine")
    settings["downstream"] = {"tasks": TASKS, "instances": 5}
    settings["resources"] = {"threads": 1}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(PROJECT / "dvc.yaml", ".")
    return parse_params(settings)


def identifiers(questions: Questions, family: str, task: str) -> list[str]:
    return [each.identifier.rpartition("#")[2] for each in questions.families[family][task].questions]


@pytest.fixture(autouse=True)
def _forked(forked_program: None, no_views: Callable[[str], None]) -> None:
    no_views("tasks.stages.downstream")


def test_the_draw_leaves_out_what_a_domain_holds(params: Params) -> None:
    questions = sample_questions.fn(params)
    excluded = {name: task.excluded for name, task in questions.tasks.items()}
    assert excluded == {"sums/gold_bpb_5shot": 1, "products/gold_bpb_5shot": 0, "loops/gold_bpb_0shot": 0}
    assert identifiers(questions, "mathematics", "sums/gold_bpb_5shot") == ["0", "1", "4", "5", "7"]  # of 8 without #2
    assert identifiers(questions, "mathematics", "products/gold_bpb_5shot") == ["0", "1", "2", "3"]
    assert identifiers(questions, "code", "loops/gold_bpb_0shot") == ["0", "1", "2", "3", "4"]
    assert sample_questions.fn(params) == questions


def test_a_model_is_scored_per_task_and_family(params: Params) -> None:
    scores = evaluate_downstream.fn(Path("models/mine"), sample_questions.fn(params), params)
    assert (scores.context_tokens, scores.precision) == (16, "float32")
    assert list(scores.families) == list(TASKS)
    sums, products = scores.tasks["mathematics"].values()
    assert scores.families["mathematics"] == pytest.approx((sums.bits_per_byte + products.bits_per_byte) / 2)
    assert scores.families["code"] == scores.tasks["code"]["loops/gold_bpb_0shot"].bits_per_byte
    for task in (sums, products):
        assert task.bits_per_byte == pytest.approx(task.nats / (math.log(2) * task.bytes))
        assert task.nats / task.tokens == pytest.approx(math.log(VOCABULARY), abs=0.2)  # random weights
        assert task.bytes == task.tokens * len(" word1")
    assert (sums.instances, sums.excluded, products.excluded) == (5, 1, 0)
    # Answers of 2, 4, 10, 12 and 16 tokens: one is cut to 15, which leaves the context one.
    assert (sums.tokens, sums.shortened, products.shortened) == (2 + 4 + 10 + 12 + 15, 1, 0)


@pytest.mark.slow
def test_several_processes_share_a_model_in_the_arithmetic_of_the_training(params: Params) -> None:
    questions = sample_questions.fn(params)
    one = evaluate_downstream.fn(Path("models/mine"), questions, params)
    two = params.model_copy(update={"resources": params.resources.model_copy(update={"processes": 2})})
    with starting_over(True):
        shared = evaluate_downstream.fn(Path("models/mine"), questions, two)
    (events,) = paths.RUNS.glob("downstream-*/events.jsonl")
    (started,) = [event for event in read_events(events) if isinstance(event, EvaluationStarted)]
    assert started.world_size == 2
    assert shared.families == pytest.approx(one.families, abs=1e-6)
    rounded = params.training.model_copy(update={"precision": "bfloat16"})
    half = evaluate_downstream.fn(Path("models/mine"), questions, params.model_copy(update={"training": rounded}))
    assert half.precision == "bfloat16" and half.families != one.families


def test_the_result_holds_every_model_and_is_read_back(params: Params) -> None:
    questions = sample_questions.fn(params)
    shutil.copytree("models/mine", "models/other")
    scores = {
        folder: evaluate_downstream.fn(Path(folder), questions, params) for folder in ("models/mine", "models/other")
    }
    compared = _downstream(Path("models/mine"), questions, params, "static-seed-1-downstream")
    assert compared == scores["models/mine"].families and len(list(paths.RUNS.glob("static-seed-1-downstream-*"))) == 1
    result = write_downstream.fn(scores)
    assert DownstreamResult.read(RESULT) == result
    assert scores["models/mine"].tasks == scores["models/other"].tasks
    rows = downstream_rows(result)
    assert [row["task"] for row in rows] == [*TASKS["mathematics"], "mean", *TASKS["code"], "mean"]
    assert rows[2]["models/other"] == round(scores["models/other"].families["mathematics"], 4)
    assert (rows[0]["questions"], rows[0]["excluded"], rows[0]["cut"]) == (5, 1, 1)


def test_folders_that_lack_files_are_all_named(params: Params) -> None:
    Path("models/empty").mkdir()
    with pytest.raises(DownstreamError) as told:
        check_models([Path("models/mine"), Path("models/none"), Path("models/empty")])
    lines = str(told.value).splitlines()
    assert lines[0].startswith("model folder: 'models/none' is not a folder")
    assert [line.split("; ")[0] for line in lines[1:]] == [
        f"model folder: models/empty has no {what}" for what in ("config.json", ".safetensors weights", "tokenizer")
    ]
    with pytest.raises(DownstreamError, match="models/empty has no tokenizer"):
        evaluate_downstream.fn(Path("models/empty"), sample_questions.fn(params), params)


def test_the_tokenizer_of_another_model_is_refused(params: Params) -> None:
    tokenizer = Path("models/mine/tokenizer.json")
    tree = json.loads(tokenizer.read_text())
    tree["model"]["vocab"]["strange"] = VOCABULARY
    tokenizer.write_text(json.dumps(tree))
    with pytest.raises(
        TrainingFailedError,
        match=f"models/mine has the token id {VOCABULARY}, and the model embeds only {VOCABULARY} tokens;",
    ):
        evaluate_downstream.fn(Path("models/mine"), sample_questions.fn(params), params)


def test_a_domain_that_cannot_be_searched_is_an_error(params: Params) -> None:
    Path("data/raw/law.jsonl").unlink()
    with pytest.raises(SourceError, match=r"law\.jsonl"):
        sample_questions.fn(params)


@pytest.mark.usefixtures("params")
def test_the_models_of_the_pipeline_are_the_default_and_are_looked_for_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused:
        run_downstream(lambda models: pytest.fail("the flow began"), [])
    assert refused.value.code == 2
    said = capsys.readouterr().err
    for folder, stage in {"models/base": "base", "models/trained": "train"}.items():
        assert f"model folder: {folder} is not there: make it with `python -m flows.{stage}`" in said
    assert "Traceback" not in said
