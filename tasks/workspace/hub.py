"""A model from the Hugging Face hub, as a folder: `python -m tasks.workspace.hub` fetches what model.path names.

DVC watches files, so a hub id is fetched once, into a folder of that name, and is then a model like any other.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.workspace.model_checks import is_hub_id
from tasks.workspace.params_file import read_params
from velocitune_core.files import replacing

logger = logging.getLogger(__name__)
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja"]  # without pickled parameters
REVISION = "revision.json"  # in the folder: what was fetched


class HubError(ValueError):
    """The model cannot be fetched."""


def fetch_model(model: str) -> None:
    """Fetch the hub model `model` (organization/name) into the folder of that name; do nothing for other paths.

    Its main branch is resolved to a commit first, so that all files are of one; `revision.json` records which.

    Raises HubError for a model that the hub does not have, or a hub that cannot be reached.
    """
    folder = Path(model)
    if folder.exists() or not is_hub_id(model):
        return
    from huggingface_hub import HfApi, snapshot_download

    with _replacing(folder) as temporary:
        try:
            commit = HfApi().model_info(model).sha
            logger.info("fetching %s at %s from the hub into %s", model, commit, folder)
            snapshot_download(model, revision=commit, local_dir=temporary, allow_patterns=WANTED)
        except Exception as error:  # the hub's client raises many kinds
            raise HubError(
                f"model.path: {model!r} is not a folder, and could not be fetched from the hub "
                f"({str(error).strip() or type(error).__name__}); give the folder of a model, or check the name, the "
                "network (HF_ENDPOINT, HTTPS_PROXY) and, for a model that is not public, HF_TOKEN"
            ) from None
        shutil.rmtree(temporary / ".cache", ignore_errors=True)  # of the download; differs between machines
        record = json.dumps({"model": model, "revision": commit}, indent=2)
        (temporary / REVISION).write_text(f"{record}\n", encoding="utf-8")
        (temporary / ".gitignore").write_text("*\n", encoding="utf-8")  # large, and published elsewhere


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Do as `replacing` does, and remove the parent that was made for the folder if that is not written after all."""
    made = not folder.parent.exists()
    try:
        with replacing(folder) as temporary:
            yield temporary
    finally:
        if made and folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def fetch_named_model() -> None:
    """Fetch the model that model.path of params.yaml names, if it is a hub id."""
    fetch_model(read_params().model.path)


def main() -> int:
    argparse.ArgumentParser(prog="python -m tasks.workspace.hub", description=__doc__).parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        fetch_named_model()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
