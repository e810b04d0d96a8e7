"""`velocitune export --out`: what it writes, and what it never replaces."""

from __future__ import annotations

import json
from pathlib import Path

import export_samples as samples
import pytest

from velocitune_core.contracts import StartingWeights
from velocitune_core.export.command import main

WEIGHTS = StartingWeights(strategy="planned", found_by="planned", domain_weights=samples.MEAN)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with weights of `velocitune fit`."""
    WEIGHTS.write(tmp_path / "fit/weights.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(*arguments: str) -> int:
    return main(["--from", "fit/weights.json", "--tokens", "1000", *arguments])


def contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("there", "out", "message"),
    [
        ("full/sub/precious.txt", "full", "out: full is a folder, which no file replaces; give the name of a file"),
        ("keep-realised.json/precious", "keep.json", "out: keep-realised.json is a folder, which no file replaces"),
        ("fit/precious", "fit", "out: fit is a folder"),
        ("file", "file/below.json", "out: file is no folder, so that nothing can be in it; give another place"),
        ("fit/plan.json", "fit/plan.json", "out: fit/plan.json is there, and no unchanged file of an earlier export"),
        ("fit/plan.html", "fit/plan.html", "give another name, or --force to replace it"),
        ("a-realised.json", "a.json", "out: a-realised.json is there, and no unchanged file of an earlier export"),
        ("x", "fit/weights.json", "out: fit/weights.json is what the mixture is read from; give another name"),
    ],
)
def test_nothing_is_replaced_but_an_earlier_export(
    folder: Path, capsys: pytest.CaptureFixture[str], there: str, out: str, message: str
) -> None:
    Path(there).parent.mkdir(parents=True, exist_ok=True)
    Path(there).write_text("{}")
    before = contents(folder)
    assert written("--to", "json", "--out", out) == 2
    assert message in capsys.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("out", ["odd/", ".", "", "..", "odd/.."])
def test_the_name_of_a_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    before = contents(folder)
    with pytest.raises(SystemExit, match="2"):
        written("--to", "json", "--out", out)
    assert f"--out: {out!r} names a folder; give the name of a file, such as mixture.yaml" in capsys.readouterr().err
    assert contents(folder) == before


def test_an_earlier_export_is_replaced_until_somebody_changes_it(folder: Path) -> None:
    assert written("--to", "json", "--out", "mixture.json") == 0
    assert written("--to", "olmo-core", "--out", "mixture.json") == 0, "for another trainer"
    assert written("--to", "json", "--out", "mixture.yaml") == 0, "with one file beside both"
    assert written("--to", "olmo-core", "--out", "mixture.json") == 0, "which knows the first one still"
    mine = Path("mixture.json").read_text() + "# mine\n"
    Path("mixture.json").write_text(mine)
    assert written("--to", "olmo-core", "--out", "mixture.json") == 2
    assert Path("mixture.json").read_text() == mine
    assert written("--to", "olmo-core", "--out", "mixture.json", "--force") == 0
    assert Path("mixture.json").read_text() + "# mine\n" == mine


def test_force_replaces_files_but_no_folder_and_nothing_that_was_read(folder: Path) -> None:
    Path("plan.json").write_text("{}")
    assert written("--to", "json", "--out", "plan.json", "--force") == 0
    Path("full").mkdir()
    Path("full/precious").touch()
    assert written("--to", "json", "--out", "full", "--force") == 2 and Path("full/precious").exists()
    for out in ("fit/weights.json", "full/../fit/weights.json"):
        assert written("--to", "json", "--out", out, "--force") == 2
    assert StartingWeights.read(Path("fit/weights.json")) == WEIGHTS


def test_links_are_followed_and_kept(folder: Path) -> None:
    Path("there").mkdir()
    Path("link.json").symlink_to(folder / "there/mixture.json")
    for _ in range(2):
        assert written("--to", "json", "--out", "link.json") == 0
        assert Path("link.json").is_symlink() and "unit" in json.loads(Path("there/mixture.json").read_text())
    assert {path.name for path in folder.iterdir()} == {"fit", "there", "link.json"}


def test_both_files_name_the_same_unit(folder: Path) -> None:
    for to, unit in (("json", "tokens"), ("streaming", "sequences")):
        assert written("--to", to, "--out", f"{to}.json") == 0
        assert json.loads(Path(f"{to}-realised.json").read_text())["unit"] == unit
    assert json.loads(Path("json.json").read_text())["unit"] == "tokens"
