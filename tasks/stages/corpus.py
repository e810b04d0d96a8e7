"""Download the archives that the embedded domains are read from, and write the domains' documents."""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from prefect import task

from velocitune_core.recipes.embedded import write_corpus

logger = logging.getLogger(__name__)

_REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)==(?P<version>\S+)\s+--hash=sha256:(?P<sha256>[0-9a-f]{64})")


class DownloadError(RuntimeError):
    """An archive that could not be fetched; the message names the package and what pip said last."""


@task(name="fetch archives")
def fetch_archives(requirements: Path, folder: Path) -> None:
    """Put every archive of a pinned and hashed pip requirements file into `folder`; those that lie there stay.

    Raises ValueError for a line without exact version and sha256, DownloadError for a package that pip cannot fetch.
    To read the version of a source archive pip runs its setup.py in an environment of pip's own: of the code that the
    hash pins.
    """
    wanted = _read_requirements(requirements)
    folder.mkdir(parents=True, exist_ok=True)
    present = {_sha256(path) for path in folder.iterdir() if path.is_file()}
    for requirement, sha256 in wanted.items():
        if sha256 in present:
            continue
        logger.info("downloading %s", requirement)
        _download(requirement, sha256, folder)


@task(name="write documents")
def write_documents(name: str, archives: Path, folder: Path) -> int:
    """Write `<folder>/<name>.jsonl`, the documents of an embedded domain. Returns how many there are."""
    count = write_corpus(name, archives, folder)
    logger.info("%s: %d documents", name, count)
    return count


def _read_requirements(path: Path) -> dict[str, str]:
    """`package==version` → sha256."""
    wanted = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{path}:{number}: {requirement!r} is not `package==version --hash=sha256:…`")
        wanted[f"{match['package']}=={match['version']}"] = match["sha256"]
    return wanted


def _download(requirement: str, sha256: str, folder: Path) -> None:
    """Fetch one archive beside its place, so that it arrives whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        hashed = Path(temporary, "requirements.txt")
        hashed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        destination = Path(temporary, "archives")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--progress-bar", "off", "-r", str(hashed), "-d", str(destination)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            said = "\n".join(f"  {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-8:])
            raise DownloadError(
                f"{requirement}: pip could not download it; check the network and the package index, "
                f"or put the archive into {folder} yourself. pip said:\n{said}"
            )
        for archive in destination.iterdir():
            archive.replace(folder / archive.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
