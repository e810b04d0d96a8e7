"""The inputs of the large mixture, in the current workspace: packages → documents, a GGUF → a model.

`make large` makes the workspace, runs this in it, and then the comparison.
"""

import sys
from pathlib import Path

from prefect import flow, unmapped

from tasks.recipes.debian_npm import (
    DEBIAN_PACKAGES,
    DOCUMENTS,
    DOMAINS,
    MAN_PACKAGES,
    NPM_PACKAGES,
    check_programs,
    fetch_debian,
    fetch_npm,
    render_man_pages,
    write_large_documents,
)
from tasks.recipes.gguf import check_converter, convert_model
from tasks.stages.corpus import fetch_archives, write_documents
from tasks.workspace import paths
from tasks.workspace.lock import (
    WorkspaceBusyError,
    exclusive,
    spare_tracebacks_of_user_errors,
    stop_children_on_interrupt,
)

ARCHIVE_LIST = Path("large/archives.txt")


@flow(name="large inputs")
def large() -> None:
    fetch_archives(ARCHIVE_LIST, paths.ARCHIVES)
    convert_model(paths.ARCHIVES)
    write_documents.map(["general"], unmapped(paths.ARCHIVES), unmapped(DOCUMENTS)).result()
    for package in DEBIAN_PACKAGES:  # one by one: a mirror is not to be pressed
        fetch_debian(package)
    for package in NPM_PACKAGES:
        fetch_npm(package)
    render_man_pages.map(list(MAN_PACKAGES)).result()
    for name in DOMAINS:  # one by one: each is held in memory while it is put in order
        write_large_documents(name)


def main() -> None:
    stop_children_on_interrupt()
    spare_tracebacks_of_user_errors()
    try:
        check_programs()
        check_converter()
        with exclusive():
            large()
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
