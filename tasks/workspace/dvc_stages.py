"""The stages of DVC: their order, their status, and committing what was made without `dvc repro`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import networkx
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage

from tasks.workspace.data_folder import unwatched_files_changed
from tasks.workspace.optional_stages import show_used_stages
from tasks.workspace.params_file import params_tree, read_params
from tasks.workspace.planned_settings import unwatched_siblings
from velocitune_core.strategies import PLANNED

logger = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_FOR_DVC = 60.0  # for another command of DVC to give back its locks
GOALS = {"report": "report", "mixture": "weights", "compare": "comparison/dvc.yaml:compare"}


def repository() -> Repo:
    """Open the DVC repository of this folder; outside of git, as in an unpacked archive, without git."""
    here = Path.cwd()
    in_git = any((folder / ".git").exists() for folder in [here, *here.parents])
    return Repo(".") if in_git else Repo(".", config={"core": {"no_scm": True}})


def stages_in_order(goal: str = "report") -> list[str]:
    """Return the addresses of the stages up to `goal`, in the order in which they must run.

    Stages whose outputs params.yaml does not use are not among them, and become invisible to DVC.
    """
    show_used_stages(params_tree(), comparing=goal == "compare", reporting=goal == "report")
    with repository() as repo:
        last = repo.stage.get_target(GOALS[goal])
        ordered = networkx.dfs_postorder_nodes(repo.index.graph, last)  # edges lead to what a stage depends on
        return [str(stage.addressing) for stage in ordered if isinstance(stage, PipelineStage)]


def is_up_to_date(stage: str) -> bool:
    """Return whether the stage's dependencies and outputs are unchanged since it ran, and so is what DVC cannot watch.

    Never for a stage that runs a strategy of the user's own, whose code DVC does not watch, or trains a sibling that
    DVC does not watch: the stage takes the results of finished runs, if that code, or the sibling, is unchanged.
    """
    name = stage.rpartition(":")[2]
    strategies = [str(each) for each in _strategies_of(name)]
    if any(":" in each for each in strategies):
        return False
    if stage == "prepare" and unwatched_files_changed(read_params()):
        return False
    if (
        name in {"weights", "compare"}
        and PLANNED in strategies
        and unwatched_siblings(read_params(), name == "compare")
    ):
        return False

    def unchanged() -> bool:
        with repository() as repo:
            return not repo.status(targets=[stage])

    return _once_dvc_is_free(unchanged)


def commit(address: str, settings_unchanged: Callable[[], bool]) -> bool:
    """Record the stage's outputs as `dvc repro` would, so that it counts as up to date; return whether that was done.

    Args:
        settings_unchanged: whether params.yaml still has the content that the stage ran under. DVC hashes dependencies,
            which can take minutes, before it reads params.yaml; so this is called before the hashing and after it, and
            nothing is recorded, neither in dvc.lock nor in DVC's run cache, unless it is true both times.
    """
    return settings_unchanged() and _once_dvc_is_free(lambda: _commit(address, settings_unchanged))


def _commit(address: str, settings_unchanged: Callable[[], bool]) -> bool:
    with repository() as repo, lock_repo(repo):
        stage = repo.stage.get_target(address)
        stage.save(run_cache=False)  # in memory: hashes of dependencies and outputs, values of params.yaml
        if not settings_unchanged():
            return False
        repo.stage_cache.save(stage)
        stage.commit()
        stage.dvcfile.dump_stages([stage], update_pipeline=False)
    return True


def _once_dvc_is_free(work: Callable[[], T]) -> T:
    """Do what needs locks of DVC, again while another command has them: `dvc repro` does until its stage is refused.

    Raises LockError if it has them for longer than SECONDS_FOR_DVC.
    """
    since, said = time.monotonic(), False
    while True:
        try:
            return work()
        except LockError as error:
            if time.monotonic() - since > SECONDS_FOR_DVC:
                raise
            if not said:
                logger.warning("waiting for another command of DVC in this folder: %s", str(error).splitlines()[0])
                said = True
        time.sleep(1)


def _strategies_of(stage: str) -> list[str]:
    """Return the names of the strategies that a stage runs, apart from the static one."""
    tree = params_tree()
    if stage in {"weights", "train"}:
        return [(tree.get("strategy") or {}).get("name", "")]
    if stage == "compare":
        return [run.get("strategy", "") for run in (tree.get("compare") or {}).get("runs", {}).values()]
    return []
