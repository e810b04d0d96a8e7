"""Stage `targets`: a scaling law per domain from the proxies, read at the full budget."""

from prefect import flow

from tasks.stages.targets import write_targets
from tasks.views.prefect_artifacts import print_table, publish_table, target_rows
from tasks.workspace import paths
from tasks.workspace.lock import run_stage
from tasks.workspace.preflight import checked_params
from velocitune_core.contracts import InitialLosses


@flow(name="targets")
def targets() -> None:
    rows = target_rows(write_targets(checked_params()), InitialLosses.read(paths.INITIAL).losses)
    publish_table("targets", "Target losses in nats per token, with their evidence", rows)
    print_table("Targets", rows)


if __name__ == "__main__":
    run_stage(targets)
