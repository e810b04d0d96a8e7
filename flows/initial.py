"""Stage `initial`: held-out loss of the base model, per domain."""

from prefect import flow

from tasks.stages.initial import evaluate_base
from tasks.views.table_rows import show_initial
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import Manifest


@flow(name="initial", flow_run_name="initial")
def initial() -> None:
    show_initial(evaluate_base(checked_params(), Manifest.read(paths.MANIFEST)))


if __name__ == "__main__":
    run_stage(initial, trains=True)
