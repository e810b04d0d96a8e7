"""What DVC has recorded of a pipeline, in MLflow: hashes as tags, and its lock file."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tasks.views.mlflow_described import EXPERIMENT_TAG
from tasks.views.mlflow_runs import Tracker, optional
from tasks.workspace.dvc_recorded import recorded_stages

LOCK = Path("dvc.lock")


def log_recorded(tracker: Tracker) -> None:
    """Tag the parent run with DVC's hash of every output, as `dvc.<path>`, and log dvc.lock.

    Both have only the stages whose entry is of this run's files and settings. A tag that is no longer true is removed.
    """
    with tracker.reaching() as client:
        if client is None:
            return
        from mlflow.entities import RunTag

        with optional("DVC's hashes"):
            recorded = recorded_stages()
            tags = {
                f"dvc.{out['path']}": json.dumps(out.get("md5")).strip('"')
                for stages in recorded.values()
                for entry in stages.values()
                for out in entry.get("outs", [])
            }
            before = client.get_run(tracker.parent).data.tags
            for tag in before:
                if tag.startswith("dvc.") and tag not in tags and tag != EXPERIMENT_TAG:
                    client.delete_tag(tracker.parent, tag)
            client.log_batch(tracker.parent, tags=[RunTag(tag, value) for tag, value in tags.items()])
            if LOCK in recorded:
                text = yaml.safe_dump({"schema": "2.0", "stages": recorded[LOCK]}, sort_keys=False)
                client.log_text(tracker.parent, text, LOCK.name)
