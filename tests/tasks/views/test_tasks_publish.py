"""What a finished pipeline puts on the parent run in MLflow, and its table in Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import result_samples as samples
from mlflow import MlflowClient
from planned_samples import fitted

from tasks.views.mlflow_runs import CONFIG_TAG, PARENT_TAG
from tasks.views.publish import PublishedRun, publish_plan, publish_results
from tasks.workspace import paths
from velocitune_core.config import parse_params
from velocitune_core.report.run_page import plan_figures
from velocitune_core.report.summary import summary_metrics
from velocitune_core.train.events import Evaluated, EventFile


@pytest.mark.slow
def test_tables_files_metrics_and_missed_events_are_published(
    workspace: Path, mlflow_store: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[str] = []
    monkeypatch.setattr(
        "tasks.views.prefect_artifacts.create_table_artifact", lambda table, key, **_: tables.append(key)
    )
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "publish"}
    results = samples.report_data()
    paths.REPORT.mkdir()
    (paths.REPORT / "index.html").touch()
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # targets, manifest and result are missing, and left out
    folder = workspace / "runs/training-1"
    file = EventFile(folder / "events.jsonl")
    file(Evaluated(step=5, tokens=480, losses={"code": 3.25}, seconds=1.0))
    file.close()

    publish_results.fn(parse_params(settings), results, [PublishedRun("training", folder)])

    assert tables == ["results"]
    client = MlflowClient(settings["tracking"]["uri"])
    experiment = client.get_experiment_by_name("publish")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if CONFIG_TAG in run.data.tags]
    (child,) = [run for run in runs if PARENT_TAG in run.data.tags]
    assert parent.info.status == "FINISHED"
    metrics = summary_metrics(results)
    assert parent.data.metrics["macro_average_loss/final"] == pytest.approx(metrics["macro_average_loss"]["final"])
    files = sorted(each.path for each in client.list_artifacts(parent.info.run_id))
    assert files == ["config.yaml", "dvc.lock", "report"]
    assert 3.25 in child.data.metrics.values()


@pytest.mark.slow
def test_a_plan_is_on_the_parent_run_before_any_training(
    workspace: Path, mlflow_store: Path, settings: dict[str, Any]
) -> None:
    settings["tracking"] = {"uri": f"sqlite:///{mlflow_store / 'mlflow.db'}", "experiment": "plan"}
    plan = fitted({"code": 0.6, "law": 0.4}, bootstrap=2)
    paths.PLAN_PAGE.parent.mkdir(exist_ok=True)
    paths.PLAN_PAGE.write_text(plan.page(), encoding="utf-8")
    publish_plan(parse_params(settings), plan, plan_figures(plan))
    client = MlflowClient(settings["tracking"]["uri"])
    experiment = client.get_experiment_by_name("plan")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id])
    files = {each.path for folder in ("", "plan") for each in client.list_artifacts(parent.info.run_id, folder)}
    assert {"plan.html", "plan/plan_rates.png", "plan/plan_trade_offs.png"} <= files
    assert parent.data.metrics["plan/weight/code"] == pytest.approx(plan.plan.weights["code"])
