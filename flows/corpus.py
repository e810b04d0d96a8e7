"""Stage `corpus`: archives of the package index → documents of the embedded domains."""

from prefect import flow, unmapped

from tasks.stages.corpus import fetch_archives, write_documents
from tasks.views.table_rows import show_documents
from tasks.workspace import paths
from tasks.workspace.stage_cli import run_stage
from velocitune_core.recipes.embedded import EMBEDDED


@flow(name="corpus", flow_run_name="corpus")
def corpus() -> None:
    fetch_archives(paths.ARCHIVE_LIST, paths.ARCHIVES)
    counts = write_documents.map(list(EMBEDDED), unmapped(paths.ARCHIVES), unmapped(paths.EMBEDDED)).result()
    show_documents(dict(zip(EMBEDDED, counts, strict=True)))


if __name__ == "__main__":
    run_stage(corpus)
