"""The stages of DVC: their order, their status, and committing what was made without `dvc repro`."""

from __future__ import annotations

import networkx
from dvc.repo import Repo
from dvc.stage import PipelineStage

GOALS = {"report": "report", "compare": "comparison/dvc.yaml:compare"}


def stages_in_order(goal: str = "report") -> list[str]:
    """Return the addresses of the stages up to `goal`, in the order in which they must run.

    Stages whose outputs params.yaml does not use are not among them.
    """
    with Repo(".") as repo:
        last = repo.stage.get_target(GOALS[goal])
        ordered = networkx.dfs_postorder_nodes(repo.index.graph, last)  # edges lead to what a stage depends on
        return [str(stage.addressing) for stage in ordered if isinstance(stage, PipelineStage)]


def is_up_to_date(stage: str) -> bool:
    """Return whether the stage's dependencies and outputs are unchanged since it ran."""
    with Repo(".") as repo:
        return not repo.status(targets=[stage])


def commit(stage: str) -> None:
    """Record the stage's outputs as `dvc repro` would, so that it counts as up to date."""
    with Repo(".") as repo:
        repo.commit(stage, force=True)
