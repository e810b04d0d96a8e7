"""Which checkpoints a run may resume from."""

from __future__ import annotations

from velocitune_core.checkpoint.store import Checkpoint, CheckpointError
from velocitune_core.train.extension import common_steps
from velocitune_core.train.job import TrainJob, differences


def check_recipe(checkpoint: Checkpoint, job: TrainJob, *, accept_changes: bool = False) -> list[str]:
    """Compare the recipe of a checkpoint with a job's, and return what to log of their differences.

    A run of another length may be continued as far as the two have their first steps in common.

    Raises CheckpointError for any other difference, unless changes are accepted.
    """
    recipe = checkpoint.state.get("recipe", {})
    changed = differences(recipe, job.recipe())
    if not changed:
        return []
    if checkpoint.step <= common_steps(recipe, job)[0]:
        return [f"continues a run of {recipe['total_steps']} steps from its step {checkpoint.step}"]
    if not accept_changes:
        raise CheckpointError(
            checkpoint.path,
            f"{checkpoint.path.parent} belongs to another recipe; start in a new output folder, pass --accept-changes, "
            "or undo:\n" + "\n".join(changed),
        )
    return [f"accepted change since step {checkpoint.step}:{line}" for line in changed]
