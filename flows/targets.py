"""Stage `targets`: a scaling law per domain from the proxies, read at the full budget."""

from prefect import flow

from tasks import paths
from tasks.artifacts import print_table, publish_table, target_rows
from tasks.preflight import checked_params
from tasks.targets import write_targets
from tasks.workspace import run_stage
from velocitune_core.contracts import InitialLosses


@flow(name="targets")
def targets() -> None:
    rows = target_rows(write_targets(checked_params()), InitialLosses.read(paths.INITIAL).losses)
    publish_table("targets", "Target losses in nats per token, with their evidence", rows)
    print_table("Targets", rows)


if __name__ == "__main__":
    run_stage(targets)
