"""Stage `prepare`: documents → deduplicated, split, tokenized, packed; one task per domain."""

from typing import Any

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.runs.budget import check_budget
from tasks.runs.jobs import initial_domain_weights
from tasks.stages.prepare import all_packed, pack, read_through, write_manifest
from tasks.views.table_rows import show_mixture
from tasks.workspace.data_folder import warn_of_sources
from tasks.workspace.preflight import checked_params
from tasks.workspace.source_rows import refuse_unreadable, unread_sources
from tasks.workspace.stage_cli import run_stage
from velocitune_core.config import Params

DOMAINS_AT_ONCE = 2  # each uses all cores; while one reads or writes, the other computes


@flow(name="prepare", flow_run_name="prepare")
def prepare() -> None:
    params = checked_params()
    warn_of_sources(params)
    read_all(params)
    pack_all(params)


def read_all(params: Params) -> None:
    """Read all sources that were not read before, so that their problems are one message before any work."""
    if unread := unread_sources(params):
        refuse_unreadable(read_through.map(unread, unmapped(params)).result())


def pack_all(params: Params) -> None:
    names = list(params.domains)
    with ThreadPoolTaskRunner(max_workers=DOMAINS_AT_ONCE) as runner:
        futures: Any = runner.map(pack, {"name": names, "params": unmapped(params)})
        packed = all_packed(names, futures.result(raise_on_failure=False))
    manifest = write_manifest(params, packed)
    check_budget(params, manifest)
    show_mixture(manifest, initial_domain_weights(params, manifest))


if __name__ == "__main__":
    run_stage(prepare)
