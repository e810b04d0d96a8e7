"""Stage `corpus`: archives of the package index → documents of the embedded domains."""

from prefect import flow, unmapped

from tasks.stages.corpus import fetch_archives, write_documents
from tasks.workspace import paths
from tasks.workspace.stage_cli import run_stage
from velocitune_core.recipes.embedded import EMBEDDED


@flow(name="corpus", flow_run_name="corpus")
def corpus() -> None:
    fetch_archives(paths.ARCHIVE_LIST, paths.ARCHIVES)
    write_documents.map(list(EMBEDDED), unmapped(paths.ARCHIVES), unmapped(paths.EMBEDDED)).result()


if __name__ == "__main__":
    run_stage(corpus)
