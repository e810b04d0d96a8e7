"""What DVC says of a stage, and telling DVC what was made outside of it."""

from __future__ import annotations

import networkx
from dvc.repo import Repo
from dvc.stage import PipelineStage

GOALS = {"report": "report", "compare": "comparison/dvc.yaml:compare"}


def stages_in_order(goal: str = "report") -> list[str]:
    """Addresses of the stages that a stage needs, and its own, in the order in which they must run.

    A stage that makes an input that params.yaml does not use is not among them.
    """
    with Repo(".") as repo:
        last = repo.stage.get_target(GOALS[goal])
        ordered = networkx.dfs_postorder_nodes(repo.index.graph, last)  # edges lead to what a stage depends on
        return [str(stage.addressing) for stage in ordered if isinstance(stage, PipelineStage)]


def is_up_to_date(stage: str) -> bool:
    """Whether nothing that the stage depends on, and nothing that it made, has changed since it ran."""
    with Repo(".") as repo:
        return not repo.status(targets=[stage])


def commit(stage: str) -> None:
    """Record what a stage just made, as `dvc repro` would have, so that it counts as up to date."""
    with Repo(".") as repo:
        repo.commit(stage, force=True)
