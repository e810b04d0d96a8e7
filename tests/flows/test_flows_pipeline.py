"""The whole pipeline in miniature, on text that every Python installation has: no network, no embedded data.

The tests follow each other through one workspace: the pipeline makes everything as a process of its own, `dvc repro`
finds nothing to do, and a changed parameter goes through the pipeline. `.ci/end-to-end` shows the rest of the agreement
of both doors: `dvc repro` makes everything, and a deployment finds nothing to do.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from databases import copy_database
from dvc.repo import Repo
from forked import ForkedRun
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.settings import PREFECT_API_URL
from prefect_databases import server_for_this_process
from question_archive import TASKS, write_archive
from rendered import without_drawing
from trainings import wait_for
from workspaces import Workspace, finished, make_workspace, without_network

from tasks.runs.jobs import proxy_jobs
from tasks.runs.run_folder import run_folder
from tasks.stages.compare import compared_swarms
from tasks.stages.proxies import train_proxy
from tasks.views.mlflow_metrics import metrics_of
from tasks.views.mlflow_runs import CONFIG_TAG, PARENT_TAG
from velocitune_core.config import load_params
from velocitune_core.contracts import (
    Comparison,
    DownstreamResult,
    InitialLosses,
    Manifest,
    ProxyResult,
    StartingWeights,
    Targets,
    TrainResult,
)
from velocitune_core.report.headline import comparison_answer
from velocitune_core.train.events import Started, read_events
from velocitune_core.train.job import TrainJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

ORDER = ["base", "prepare", "initial", "proxies", "targets", "weights", "train", "report"]
PROXIES = {0.2: "proxy-0_2-seed-1", 0.4: "proxy-0_4-seed-1", 0.8: "proxy-0_8-seed-1"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path, mlflow_database: Path) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("workspace"))
    copy_database(mlflow_database, made.folder / "mlflow.db")
    copy_database(prefect_database, made.folder / ".prefect-home/prefect.db")
    made.write_params(made.params() | {"proxies": {"fractions": [*PROXIES], "seeds": [1], "evaluations": 2}})
    return made


@pytest.fixture(scope="module")
def _prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server for all commands that run in this process."""
    with server_for_this_process(prefect_database, tmp_path_factory.mktemp("prefect")):
        yield


@pytest.fixture(scope="module")
def first_run(workspace: Workspace) -> tuple[str, str, int]:
    """What the first pipeline said, what a stage said that was started meanwhile, and the pipeline's process id."""
    pipeline = workspace.start("flows.pipeline")
    try:
        lock = workspace.folder / ".velocitune/holder.json"
        deadline = time.monotonic() + 120
        while not (lock.exists() and lock.read_text()) and pipeline.poll() is None:
            assert time.monotonic() < deadline, "the pipeline does not start"
            time.sleep(0.2)
        refused = workspace.run_here("flows.prepare", status=2)
        return finished(pipeline), refused, pipeline.pid
    finally:
        pipeline.kill()


def test_pipeline_makes_everything_that_dvc_declares(workspace: Workspace, first_run: tuple[str, str, int]) -> None:
    for file in ("dvc.yaml", "inputs/corpus/dvc.yaml", "inputs/base/dvc.yaml"):
        for name, stage in yaml.safe_load((workspace.folder / file).read_text())["stages"].items():
            outs = [*stage["outs"], *(path for metric in stage.get("metrics", []) for path in metric)]
            if name != "corpus":
                assert [out for out in outs if not (workspace.folder / out).exists()] == [], name
    assert not (workspace.folder / "data/embedded").exists()
    assert "Result" in first_run[0]


def test_a_log_of_the_pipeline_has_no_line_too_many(workspace: Workspace, first_run: tuple[str, str, int]) -> None:
    """In a log, with bars; the demo has 20 lines more, of its other stage, domains, proxy and sibling.

    At most 90 and 60 are wanted of the demo, in a log and in a terminal, which keeps no bars.
    """
    lines = first_run[0].split("\n")
    assert len(lines) <= 60, first_run[0]
    assert rows_in_a_terminal(lines) <= 50, first_run[0]
    for noise in ("Finished in state", "Beginning", "lock file", "Stopping temporary", "not compiled", "UserWarning"):
        assert noise not in first_run[0]
    assert re.search(r"\[4/8\] proxies, about \d+ (s|min) left", first_run[0])
    assert re.search(r"training, step \d+ of 68, weights: .* → ", first_run[0])
    (said,) = (line for line in lines if line.startswith("answer: "))
    assert said.startswith("answer: velocitune lowered the mean held-out loss of 3 domains from ")
    assert said.endswith("beat static training is in comparison/report after make compare or velocitune compare.")


def rows_in_a_terminal(lines: list[str], columns: int = 100) -> int:
    """Count the rows that lines of a log fill in a terminal: without times and bars; tables are made to fit."""
    kept = [line for line in lines if not re.search(r"^packing |\d%\||, step \d+ of \d+, weights: ", line)]
    shown = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in kept]
    return sum(1 if re.search(r"───|\S  +\S", line) else max(1, -(-len(line) // columns)) for line in shown)


@pytest.mark.usefixtures("first_run")
def test_everything_was_made_without_a_network(workspace: Workspace) -> None:
    if not without_network():
        pytest.skip("no namespace without a network may be made here: needs root, `unshare` and `ip`")
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"  # an address of no one
    refused = subprocess.run(
        [*without_network(), sys.executable, "-c", connect], capture_output=True, text=True, check=False
    )
    assert "Network is unreachable" in refused.stderr
    assert (workspace.folder / "results/train.json").exists()


def test_a_second_run_in_the_workspace_is_refused(first_run: tuple[str, str, int]) -> None:
    _, refused, pid = first_run
    assert "is running in this workspace" in refused
    assert f"process {pid} " in refused and "flows.pipeline" in refused


@pytest.mark.usefixtures("first_run")
def test_results_keep_their_contracts(workspace: Workspace) -> None:
    results = workspace.folder / "results"
    domains = {"code", "licences", "general"}
    assert set(Manifest.read(workspace.folder / "prepared/manifest.json").domains) == domains
    assert set(InitialLosses.read(results / "initial.json").losses) == domains
    assert set(Targets.read(results / "targets.json").domains) == domains
    train = TrainResult.read(results / "train.json")
    assert set(train.final) == domains and train.strategy == "velocitune"
    proxies = {path.stem: ProxyResult.read(path) for path in (results / "proxies").iterdir()}
    assert {name: proxy.fraction for name, proxy in proxies.items()} == {name: size for size, name in PROXIES.items()}
    metrics = json.loads((workspace.folder / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics


@pytest.mark.usefixtures("first_run")
def test_the_trained_model_loads(workspace: Workspace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = workspace.folder / "models/trained"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer("import os\n", return_tensors="pt").input_ids
    assert len(tokenizer) == 512 and torch.isfinite(model(ids).logits).all()


@pytest.mark.usefixtures("first_run")
def test_mlflow_shows_every_training_under_one_parent(workspace: Workspace) -> None:
    client, runs = mlflow_runs(workspace)
    parents = [run for run in runs if CONFIG_TAG in run.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED" and parents[0].data.params["strategy.name"] == "velocitune"
    assert {"dvc.prepared", "dvc.results/weights.json", "dvc.report"} <= set(parents[0].data.tags)  # of the last stage
    children = {run.data.tags["velocitune.name"]: run for run in runs if PARENT_TAG in run.data.tags}
    assert sorted(children) == sorted([*PROXIES.values(), "base", "training"]) and len(runs) == len(children) + 1
    for child in children.values():
        assert child.data.tags[PARENT_TAG] == parents[0].info.run_id and child.info.status == "FINISHED"
    expected: dict[str, list[tuple[int, int, float]]] = {}
    for event in read_events(workspace.folder / "results/events.jsonl"):
        for key, value in metrics_of(event):
            expected.setdefault(key, []).append((event.step, round(event.time * 1000), value))
    run_id = children["training"].info.run_id
    more = {key.split("/")[0] for key in set(children["training"].data.metrics) - set(expected)}
    assert more == {"average_loss", "target", "system"} and set(expected) < set(children["training"].data.metrics)
    initial = InitialLosses.read(workspace.folder / "results/initial.json").losses
    for key, points in expected.items():
        found = [(each.step, each.timestamp, each.value) for each in client.get_metric_history(run_id, key)]
        section, name = key.split("/")
        before = [value for step, _, value in found if step == 0] if section in {"loss", "average_loss"} else []
        assert before == ([initial[name]] if section == "loss" else before), key
        assert sorted(each for each in found if each[0] > 0 or not before) == sorted(points), key


@pytest.mark.usefixtures("first_run")
def test_dvc_repro_after_the_pipeline_does_nothing(workspace: Workspace) -> None:
    said = workspace.run("dvc", "repro")
    assert "Running stage" not in said and "up to date" in said


@pytest.mark.usefixtures("first_run", "_prefect_server", "forked_program")
def test_a_changed_option_of_the_strategy_concerns_weights_train_and_report_only(workspace: Workspace) -> None:
    tree = workspace.params()
    tree["strategy"]["options"]["step_size"] = 0.5
    workspace.write_params(tree)
    assert stale(workspace) == {"weights", "train"}  # and then what depends on what it makes
    with without_drawing():
        said = workspace.run_here("flows.pipeline")
    assert [name for name in ORDER if f"{name}: up to date, skipped" not in said] == ["weights", "train", "report"]
    prefect_shows_the_run()
    assert stale(workspace) == set()
    _, runs = mlflow_runs(workspace)
    parents = [run for run in runs if CONFIG_TAG in run.data.tags]
    parent = next(run for run in parents if run.data.params.get("strategy.options.step_size") == "0.5")
    children = {run.data.tags["velocitune.name"] for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id}
    assert children == {*PROXIES.values(), "training"}  # proxies of the other configuration, which this one shares


def prefect_shows_the_run() -> None:
    """The run that one started has a name, tags, the answer as its artifact, and a line per evaluation below it."""
    with get_client(sync_client=True) as client:
        runs = {run.name: run for run in client.read_flow_runs()}
        assert runs.keys() == {"train · velocitune · seed 1", "weights", "train", "report"}
        parent, training = runs["train · velocitune · seed 1"], runs["train"]
        assert parent.tags == ["strategy: velocitune", "seed: 1", "experiment: velocitune"]
        artifacts = {each.key: each for each in client.read_artifacts() if each.key}  # results have none
        assert all(key.startswith("velocitune-") for key in artifacts)
        page = artifacts["velocitune-answer"]
        assert page.flow_run_id == parent.id and page.type == "markdown"
        for part in (
            "velocitune lowered",
            "| licences |",
            "```mermaid",
            "initial_domain_weights:",
            "report/index.html",
        ):
            assert part in page.data
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[training.id]))
        deadline, lines = time.monotonic() + 30, []
        while len(lines) < 6 and time.monotonic() < deadline:  # they are sent in the background
            logs = client.read_logs(wanted)
            lines = [log.message for log in logs if re.match(r"training, step \d+ of 68: mean loss", log.message)]
            time.sleep(0.2)
        assert len(lines) == 6 and "; weights " in lines[-1]  # every 12 of 68 steps, and at the end


@pytest.mark.usefixtures("_prefect_server")
def test_a_fork_of_a_process_that_has_run_a_flow_ends_with_status_0() -> None:
    """As the workers of a data loader are, in another test of this process."""

    @flow
    def nothing() -> None: ...

    nothing()
    fork = multiprocessing.get_context("fork").Process(target=list)
    fork.start()
    fork.join(60)
    assert fork.exitcode == 0


@pytest.mark.usefixtures("first_run")
def test_edited_code_of_the_core_makes_results_stale_for_dvc_and_for_runs(workspace: Workspace) -> None:
    strategy = workspace.folder / "velocitune_core/strategies/velocitune.py"
    before, everything = strategy.read_text(), {"training", *PROXIES.values()}
    asked = workspace.start_code(FINISHED_RUNS)
    assert finished_runs(asked) == everything
    try:
        strategy.write_text(before + "\n# a comment\n")
        assert stale(workspace) == {"weights", "train"} and finished_runs(asked) == everything
        strategy.write_text(before + "\nAN_EDIT = 1\n")
        assert finished_runs(asked) == set(PROXIES.values())  # not the run under that strategy
    finally:
        strategy.write_text(before)
    assert finished_runs(asked) == everything and stale(workspace) == set()
    asked.communicate()


@pytest.mark.usefixtures("first_run")
def test_a_model_of_ones_own_needs_no_base_stage(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.workspace.dvc_stages import stages_in_order
    from tasks.workspace.preflight import checked_params

    monkeypatch.chdir(workspace.folder)
    assert [each.split(":")[-1] for each in stages_in_order()] == ORDER
    shutil.copytree("models/base", "models/mine")
    before = workspace.params()
    try:
        workspace.write_params({**before, "model": {"path": "models/mine"}})
        checked_params()
        assert [each.split(":")[-1] for each in stages_in_order()] == ORDER[1:]
    finally:
        workspace.write_params(before)


@pytest.mark.usefixtures("first_run", "_prefect_server", "forked_program")
def test_the_models_of_the_pipeline_answer_the_same_questions(workspace: Workspace) -> None:
    before = workspace.params()
    write_archive(workspace.folder / "archives")
    workspace.write_params(before | {"downstream": {"tasks": TASKS, "instances": 5}})
    try:
        said = workspace.run_here("flows.downstream")
    finally:
        workspace.write_params(before)
    assert "sums/gold_bpb_5shot" in said and "models/trained" in said
    result = DownstreamResult.read(workspace.folder / "results/downstream.json")
    assert list(result.models) == ["models/base", "models/trained"]


@pytest.mark.usefixtures("first_run", "_prefect_server", "forked_program")
def test_malformed_lines_of_all_domains_are_named_at_once(workspace: Workspace) -> None:
    whole = {path: path.read_text() for path in (workspace.folder / "data/raw").glob("[cl]*.jsonl")}
    assert len(whole) == 2
    for path, text in whole.items():
        lines = text.splitlines(keepends=True)
        path.write_text("".join([*lines[:4], '{"text": "cut of\n', *lines[5:]]))
    try:
        said = workspace.run_here("flows.prepare", status=2)
    finally:
        for path, text in whole.items():
            path.write_text(text)
    assert "code.jsonl:5" in said and "licences.jsonl:5" in said


@pytest.mark.usefixtures("first_run", "_prefect_server", "forked_program")
def test_a_failing_proxy_is_retried_and_costs_only_itself(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_proxy, "retry_delay_seconds", 0)
    tree = workspace.params()
    tree["proxies"] = {"fractions": [0.25, 0.35, 0.45, 0.55], "seeds": [1], "evaluations": 2, "retries": 1}
    tree["training"]["token_budget"] = 20_000  # of 70,000
    tree["execution"] |= {"on_save_failure": "stop", "checkpoint_every_steps": 2}  # of 4 steps and more
    workspace.write_params(tree)
    folders = {job.fraction: workspace.folder / run_folder(job) for job in proxy_jobs_of(workspace)}
    obstacles = {fraction: folders[fraction] / "checkpoints" for fraction in (0.35, 0.55)}
    for obstacle in obstacles.values():  # a file where the proxy's checkpoints must go
        obstacle.parent.mkdir(parents=True)
        obstacle.touch()
    said = workspace.run_here("flows.proxies", status=1)
    assert "Retry 1/1" in said
    assert "proxy-0_35-seed-1, proxy-0_55-seed-1 failed, and the targets need proxies of 3 sizes at least" in said
    assert {fraction for fraction, folder in folders.items() if (folder / "result.json").exists()} == {0.25, 0.45}
    left = {path.stem for path in (workspace.folder / "results/proxies").iterdir()}
    assert left == set(PROXIES.values())  # as they were

    obstacles[0.55].unlink()
    tree["proxies"]["retries"] = 0
    workspace.write_params(tree)
    said = workspace.run_here("flows.proxies")
    assert len(taken(said)) == 2 and "proxy-0_35-seed-1 failed after all retries" in said
    assert "targets lack the proxies proxy-0_35-seed-1" in workspace.run_here("flows.targets")
    targets = Targets.read(workspace.folder / "results/targets.json")
    assert targets.missing_proxies == ["proxy-0_35-seed-1"]
    assert all("missing_proxies" in domain.flags for domain in targets.domains.values())


def mlflow_shows_a_comparison(workspace: Workspace) -> None:
    _, runs = mlflow_runs(workspace)
    (parent,) = [run for run in runs if run.info.run_name == "comparison · 6 strategies × 1 seed · 20 k tokens"]
    assert parent.info.status == "FINISHED" and "dvc.results/initial.json" in parent.data.tags
    children = {run.data.tags["velocitune.name"] for run in runs if run.data.tags.get(PARENT_TAG) == parent.info.run_id}
    assert {"mine-seed-1", "swarm-0_2-seed-1-01"} <= children, children


def mlflow_shows_a_mixture(workspace: Workspace, plan: StartingWeights) -> None:
    client, runs = mlflow_runs(workspace)
    (parent,) = [run for run in runs if run.info.run_name == "pipeline · planned · 20 k tokens · seed 1"]
    assert parent.info.status == "FINISHED" and "dvc.results/weights.json" in parent.data.tags
    assert parent.data.tags["mlflow.note.content"].startswith("Before the training: planned ")
    for name, weight in plan.domain_weights.items():
        assert parent.data.metrics[f"weight/{name}"] == pytest.approx(weight)
    assert {"weights.json", "plan.html", "dvc.lock"} <= {
        each.path for each in client.list_artifacts(parent.info.run_id)
    }


@pytest.mark.usefixtures("first_run", "_prefect_server", "forked_program")
def test_strategies_side_by_side_train_what_is_missing(workspace: Workspace) -> None:
    """Two passes of DoReMi, a strategy of one's own, constant weights of another run, and planned and steered ones."""
    (workspace.folder / "mine.py").write_text(OWN_STRATEGY.replace("self.weights[::-1]", "self.weigths[::-1]"))
    tree = workspace.params()
    tree["downstream"] = {"instances": 5}
    swarm = {"runs": 6, "rounds": {"first": 5, "runs": 1, "tolerance": 0}, "fractions": [0.2], "bootstrap": 3}
    runs = {
        "static": {"strategy": "static"},
        "velocitune": {"strategy": "velocitune", "options": {"gap_policy": "hold"}},
        "constant": {"strategy": "static", "weights_of": "velocitune"},
        "doremi": {"strategy": "doremi"},
        "mine": {"strategy": "mine:Alternating"},
    }
    planned = {
        "strategy": "planned",
        "options": {"swarm": swarm, "steer": {"step_size": 20.0}},
        "swarm_per_seed": True,
        "targets": {"law": "anchored"},
    }
    tree["compare"] = {"seeds": [1], "frontier": ["static"], "runs": runs | {"planned": planned}}
    tree["proxies"] = {"fractions": [*PROXIES], "seeds": [1], "evaluations": 2, "retries": 0}
    tree["training"]["token_budget"] = 20_000  # of 70,000: enough to tell that everything runs
    tree["resources"] = {"runs_per_device": 2, "threads": 1}
    workspace.write_params(tree)
    lost = swarm_of_label(workspace, "planned-seed-1")[3]
    (workspace.folder / run_folder(lost)).touch()  # a file where its folder must go
    with without_drawing():
        said = workspace.run_here("flows.pipeline", "--compare", status=1)
    assert "runs: 6, finished before: 0" in said and "mine-seed-1" in said
    kept = reached(Comparison.read(workspace.folder / "results/comparison.json"))
    assert kept.keys() == {"static", "velocitune", "constant", "doremi", "planned"}

    (workspace.folder / "mine.py").write_text(OWN_STRATEGY)
    said = workspace.run_here("flows.compare")
    assert "Strategies compared" in said
    assert "runs: 6, finished before: 4, not known yet of planned" in said  # its swarm lacked a run
    comparison = Comparison.read(workspace.folder / "results/comparison.json")
    assert f"answer: {comparison_answer(comparison)}" in said
    mlflow_shows_a_comparison(workspace)
    by_label = {run.label: run for run in comparison.runs}
    assert by_label.keys() == {*runs, "planned"}
    assert {label: losses for label, losses in reached(comparison).items() if label != "mine"} == kept
    assert by_label["constant"].result.mean_domain_weights == pytest.approx(
        by_label["velocitune"].result.mean_domain_weights
    )
    assert by_label["doremi"].search_tokens == 2 * by_label["static"].result.tokens
    assert by_label["velocitune"].uses_targets and not by_label["mine"].uses_targets
    plan = StartingWeights.read(workspace.folder / "comparison/report/plans/planned-seed-1.json")
    assert plan.planned is not None and len(plan.planned.runs) == 5 and plan.planned.missing_runs == [lost.name]
    assert f"{lost.name} failed after all retries: the plan is made from 4 others" in said
    course = by_label["planned"].result.domain_weights
    assert course[0].weights == pytest.approx(plan.domain_weights) and course[-1].weights != course[0].weights
    assert by_label["planned"].uses_targets and by_label["planned"].proxy_tokens == comparison.proxy_tokens
    page = (workspace.folder / "comparison/report/index.html").read_text()
    assert "planned-seed-1" in page and "velocitune" in page
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}

    workspace.write_params(tree | {"strategy": {"name": "planned"}, "mixture": tree["mixture"] | {"swarm": swarm}})
    trained = {path: path.read_bytes() for path in workspace.folder.glob("results/train.json")}
    said = workspace.run_here("flows.pipeline", "--mixture")  # `velocitune mixture`, from the runs of the comparison
    stages = dict(re.findall(r"\[\d/\d\] (\w+)(: up to date, skipped)?", said))
    assert list(stages) == ORDER[:6] and [name for name, skipped in stages.items() if not skipped] == ["weights"]
    assert len(taken(said)) == 5 and "predicted to be better than" in said
    assert StartingWeights.read(workspace.folder / "results/weights.json").domain_weights == plan.domain_weights
    mlflow_shows_a_mixture(workspace, plan)
    assert {path: path.read_bytes() for path in trained} == trained != {}


@pytest.mark.usefixtures("_prefect_server", "forked_program")
def test_a_flow_that_is_killed_between_rounds_goes_on_as_it_would_have(workspace: Workspace) -> None:
    """After the test before, which left the plan of a flow that nothing happened to."""
    weights, swarm = workspace.folder / "results/weights.json", list((workspace.folder / "runs").glob("swarm-*/"))
    unbroken = StartingWeights.read(weights)
    weights.unlink()
    for folder in swarm:
        shutil.rmtree(folder)
    with contextlib.chdir(workspace.folder):
        server = {"PREFECT_API_URL": PREFECT_API_URL.value()}
        run = ForkedRun(["flows.weights"], environment=server, program="forked_flow")
        second = "runs/swarm-*-round-2-*/events.jsonl"
        wait_for(lambda: run.poll() is not None or any(workspace.folder.glob(second)), 120, every_seconds=0.02)
        assert run.poll() is None, run.log
        run.kill()
        wait_for(lambda: run.poll() is not None, 20)
    assert not weights.exists()
    made = [folder for folder in swarm if (folder / "result.json").exists()]
    assert len(made) >= 3  # of the four of the first round, beside a proxy
    said = workspace.run_here("flows.weights")
    assert len(taken(said)) >= len(made) + 1
    found = StartingWeights.read(weights)
    assert found.domain_weights == unbroken.domain_weights and found.inputs == unbroken.inputs
    assert found.planned is not None and unbroken.planned is not None
    assert [run.folder for run in found.planned.runs] == [run.folder for run in unbroken.planned.runs]
    assert {folder.name for folder in (workspace.folder / "runs").glob("swarm-*/")} == {each.name for each in swarm}
    for folder in swarm:
        assert sum(isinstance(event, Started) for event in read_events(folder / "events.jsonl")) == 1, folder.name


def taken(said: str) -> set[str]:
    """Names of the runs whose results were taken; a line stands in the log and in the terminal."""
    return set(re.findall(r"([\w-]+): finished before", said))


def reached(comparison: Comparison) -> dict[str, dict[str, float]]:
    return {run.label: run.result.final for run in comparison.runs}


OWN_STRATEGY = """
from velocitune_core.strategies import Strategy


class Alternating(Strategy):
    def observe_batch(self, batch):
        self.weights = self.weights[::-1].copy()
"""


def proxy_jobs_of(workspace: Workspace) -> list[TrainJob]:
    """The proxies that the workspace's settings ask for."""
    with contextlib.chdir(workspace.folder):
        return proxy_jobs(load_params(Path("params.yaml")), Manifest.read(Path("prepared/manifest.json")))


def swarm_of_label(workspace: Workspace, plan: str) -> list[TrainJob]:
    """The runs of the first round of a plan of the comparison."""
    with contextlib.chdir(workspace.folder):
        return compared_swarms(load_params(Path("params.yaml")))[plan]


def finished_runs(process: subprocess.Popen[str]) -> set[str]:
    """Names of the training and the proxies that have a result of the workspace's code."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return set(process.stdout.readline().split())


FINISHED_RUNS = """
import sys
from pathlib import Path
from tasks.workspace import paths
from tasks.runs.jobs import proxy_jobs, training_job
from tasks.runs.run_folder import finished_result
from velocitune_core.config import load_params
from velocitune_core.contracts import InitialLosses, Manifest, Targets
params, manifest = load_params(Path("params.yaml")), Manifest.read(paths.MANIFEST)
training = training_job(params, manifest, InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS))
for _ in sys.stdin:
    print(*(job.name for job in [training, *proxy_jobs(params, manifest)] if finished_result(job)), flush=True)
"""


def stale(workspace: Workspace) -> set[str]:
    """Stages that the report needs and whose inputs or outputs differ from when they ran."""
    with contextlib.chdir(workspace.folder), Repo() as repo:
        return set(repo.status(targets=["report"], with_deps=True))


def mlflow_runs(workspace: Workspace) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(load_params(workspace.folder / "params.yaml").tracking.experiment)
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))
