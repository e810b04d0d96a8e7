"""Archives by pinned hash: what is there is not downloaded, what cannot be downloaded is named."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tasks.stages.corpus import DownloadError, fetch_archives, write_documents
from velocitune_core.files import file_sha256
from velocitune_core.recipes.documents import CorpusError

METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only index, with one wheel."""
    folder = workspace / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def requirements(*lines: str) -> Path:
    path = Path("archives.txt")
    path.write_text("\n".join(["# pinned", "", *lines]) + "\n")
    return path


def pinned(index: Path) -> str:
    return f"tiny==1.0 --hash=sha256:{file_sha256(index / 'tiny-1.0-py3-none-any.whl')}  # a wheel"


def test_an_archive_is_downloaded_once(
    index: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted, archives = requirements(pinned(index)), Path("archives")
    fetch_archives.fn(wanted, archives)
    shown = capfd.readouterr().err  # as in a log
    assert "archives: 100%" in shown and "\r" not in shown
    assert [path.name for path in archives.iterdir()] == ["tiny-1.0-py3-none-any.whl"]
    (archives / "tiny-1.0-py3-none-any.whl").rename(archives / "renamed")  # it is known by its hash
    monkeypatch.setattr("tasks.stages.corpus._download", lambda *_: pytest.fail("was downloaded again"))
    fetch_archives.fn(wanted, archives)


def test_another_file_under_the_pinned_name_is_refused(index: Path) -> None:
    wanted = requirements(pinned(index))
    with zipfile.ZipFile(index / "tiny-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("tiny.py", "import os\n")
    with pytest.raises(DownloadError, match=r"tiny==1\.0: pip could not download it") as failed:
        fetch_archives.fn(wanted, Path("archives"))
    assert "put the archive into archives yourself" in str(failed.value) and "HASH" in str(failed.value).upper()
    assert list(Path("archives").iterdir()) == []  # nothing half downloaded


@pytest.mark.parametrize("line", ["tiny>=1.0", "tiny==1.0", f"tiny --hash=sha256:{'0' * 64}", "tiny==1.0 --hash=md5:0"])
def test_a_line_that_pins_too_little_is_named(workspace: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"archives\.txt:4: 'tiny.*' is not `package==version --hash=sha256:…`"):
        fetch_archives.fn(requirements(f"good==1.0 --hash=sha256:{'0' * 64}", line), Path("archives"))
    assert not Path("archives").exists()


def test_an_unknown_domain_is_named(workspace: Path) -> None:
    with pytest.raises(CorpusError, match="poetry: no such embedded domain; there are "):
        write_documents.fn("poetry", Path("archives"), Path("data"))
