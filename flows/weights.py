"""Stage `weights`: the domain weights that the training starts from, and what is known of them."""

from prefect import flow

from tasks.runs.jobs import initial_domain_weights
from tasks.stages.weights import write_weights
from tasks.views.table_rows import show_weights
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import Manifest


@flow(name="weights")
def weights() -> None:
    params = checked_params()
    found = write_weights(params)
    show_weights(found, initial_domain_weights(params, Manifest.read(paths.MANIFEST)))


if __name__ == "__main__":
    run_stage(weights, trains=True)
