"""Stage `targets`: a scaling law per domain from the proxies, read at the full budget."""

from prefect import flow

from tasks.stages.targets import write_targets
from tasks.views.table_rows import show_targets
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage
from velocitune_core.contracts import InitialLosses


@flow(name="targets", flow_run_name="targets")
def targets() -> None:
    show_targets(write_targets(checked_params()), InitialLosses.read(paths.INITIAL).losses)


if __name__ == "__main__":
    run_stage(targets)
