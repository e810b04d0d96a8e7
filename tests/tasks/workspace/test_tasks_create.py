"""A workspace in another folder: links to the code, copies of the stages, its own settings and results."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from setuptools._distutils.filelist import FileList

from tasks.workspace.create import CODE, DVC_CONFIG, FILES, make_workspace
from tasks.workspace.lock import WorkspaceBusyError

PROJECT = Path(__file__).parents[3]
HOLD = """
import sys
from tasks.workspace.lock import exclusive
with exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


def content(folder: Path) -> list[tuple[str, int]]:
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))]


def test_a_workspace_holds_the_stages_and_follows_the_project(workspace: Path) -> None:
    folder = workspace / "w"
    make_workspace(folder)
    assert (folder / "flows/large.py").samefile(PROJECT / "flows/large.py")
    assert (folder / "dvc.yaml").read_text() == (PROJECT / "dvc.yaml").read_text()
    assert not (folder / "params.yaml").exists()
    (folder / "models").mkdir()
    (folder / "params.yaml").write_text("mine")
    before = content(folder)
    make_workspace(folder)
    assert content(folder) == before
    (folder / "dvc.yaml").write_text("stages: {}")
    (folder / "tasks").unlink()
    make_workspace(folder)
    assert (folder / "dvc.yaml").read_text() == (PROJECT / "dvc.yaml").read_text()
    assert (folder / "tasks").is_symlink() and (folder / "models").is_dir()
    assert (folder / "params.yaml").read_text() == "mine"


def test_wheel_and_source_distribution_have_what_a_workspace_is_made_of() -> None:
    (wheel,) = (
        set(ast.literal_eval(each.value))
        for each in ast.parse((PROJECT / "setup.py").read_text()).body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "FILES"
    )
    assert {*FILES, "params.yaml"} - wheel == set()
    source = FileList()
    source.set_allfiles(sorted(wheel))
    for line in (PROJECT / "MANIFEST.in").read_text().splitlines():
        if not line.startswith("#"):
            source.process_template_line(line)
    assert set(source.files) == wheel


def made_paths() -> set[str]:
    """Return what stages make, and what the clone's root ignores apart from what developers' tools make."""
    tools = {"*.egg-info/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", "/build/", "/site/"}
    found = {line.strip("/").replace("*", "") for line in set((PROJECT / ".gitignore").read_text().split()) - tools}
    for file in ("dvc.yaml", "inputs/base/dvc.yaml", "inputs/corpus/dvc.yaml", "comparison/dvc.yaml"):
        for stage in yaml.safe_load((PROJECT / file).read_text())["stages"].values():
            found |= {*stage["outs"]}
    return found | {".dvc/cache", ".dvc/tmp", "models/mine"}


def test_git_keeps_settings_and_stages_of_a_workspace_and_nothing_that_is_made(workspace: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    make_workspace(workspace)
    assert "no_scm" not in DVC_CONFIG.read_text()
    for path in map(Path, [*made_paths(), "models/mine.dvc", "params.yaml"]):
        file = path if path.suffix else path / "file"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    added = subprocess.run(["git", "add", "-A", "--dry-run"], capture_output=True, text=True, check=True).stdout
    kept = {*FILES, *CODE, ".gitignore", str(DVC_CONFIG), "models/mine.dvc", "params.yaml"}
    assert {line.split("'")[1] for line in added.splitlines()} == kept
    Path(".gitignore").write_text("mine")
    Path("dvc.yaml").write_text("older")
    make_workspace(workspace)
    assert Path(".gitignore").read_text() == "mine"


def test_dvc_uses_git_where_that_keeps_the_workspace(workspace: Path) -> None:
    make_workspace(workspace / "outside")
    subprocess.run(["git", "init", "--quiet", "repository"], check=True)
    Path("repository/.gitignore").write_text("/ignored/\n")
    for name in ("kept", "ignored"):
        make_workspace(workspace / "repository" / name)
    without = [folder for folder in ("outside", "repository/ignored", "repository/kept") if no_scm(Path(folder))]
    assert without == ["outside", "repository/ignored"]


def no_scm(folder: Path) -> bool:
    return "no_scm = true" in (folder / DVC_CONFIG).read_text()


def test_a_workspace_whose_dvc_was_set_up_otherwise_follows_the_project(workspace: Path) -> None:
    make_workspace(workspace)
    DVC_CONFIG.write_text("[core]\n    analytics = false\n    no_scm = false\n    remote = mine\n")
    Path("dvc.yaml").write_text("older")
    make_workspace(workspace)
    assert Path("dvc.yaml").read_text() == (PROJECT / "dvc.yaml").read_text()
    assert "remote = mine" in DVC_CONFIG.read_text()


def test_a_workspace_with_a_project_file_of_its_own_follows_the_project(workspace: Path) -> None:
    make_workspace(workspace)
    Path("pyproject.toml").write_text("[project]\nname = 'mine'\n")  # as `uv init` makes it
    Path("dvc.yaml").write_text("older")
    make_workspace(workspace)
    assert Path("dvc.yaml").read_text() == (PROJECT / "dvc.yaml").read_text()


def test_copies_of_the_code_become_links_and_are_kept_aside(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_workspace(workspace)
    for number in (1, 2):
        Path("flows").unlink()
        Path("flows").mkdir()
        Path(f"flows/edited-{number}.py").touch()
        make_workspace(workspace)
        assert Path("flows").resolve() == PROJECT / "flows"
        assert Path(f"flows.replaced-{number}/edited-{number}.py").exists()
        assert f"what was there is now {workspace}/flows.replaced-{number}\n" in capsys.readouterr().err


def test_a_clone_is_no_workspace_however_its_dvc_is_set_up(workspace: Path) -> None:
    make_workspace(workspace)
    Path("pyproject.toml").touch()
    for name in CODE:
        Path(name).unlink()
        Path(name).mkdir()
    before = content(workspace)
    make_workspace(workspace)
    assert content(workspace) == before


def test_a_folder_with_settings_and_data_becomes_a_workspace(workspace: Path) -> None:
    Path("params.yaml").write_text("mine")
    Path("data").mkdir()
    make_workspace(workspace)
    assert Path("params.yaml").read_text() == "mine" and Path("dvc.yaml").exists()


@pytest.mark.parametrize("names", [["thesis.tex"], ["params.yaml", "dvc.yaml"], ["params.yaml", ".dvc"]])
def test_a_folder_with_other_content_is_refused(workspace: Path, names: list[str]) -> None:
    for name in names:
        Path(name).touch()
    with pytest.raises(ValueError, match="neither empty nor a workspace"):
        make_workspace(workspace)
    assert sorted(path.name for path in workspace.iterdir()) == sorted(names)


def test_a_file_is_refused(workspace: Path) -> None:
    Path("file").touch()
    with pytest.raises(ValueError, match="not a folder"):
        make_workspace(Path("file"))


def test_a_folder_that_cannot_be_made_is_refused(workspace: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(ValueError, match=r"file/new: cannot be written: Not a directory; work in a folder"):
        make_workspace(Path("file/new"))


def test_a_repository_of_its_own_is_left_as_it_is(workspace: Path) -> None:
    DVC_CONFIG.parent.mkdir()
    DVC_CONFIG.write_text("[core]\n    remote = mine\n")
    Path("dvc.yaml").write_text("stages: {}\n")
    before = content(workspace)
    make_workspace(workspace)
    assert content(workspace) == before


def test_stages_do_not_change_under_a_run(workspace: Path) -> None:
    make_workspace(workspace)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None and run.stdin is not None and run.stdout.readline() == "held\n"
        make_workspace(workspace)  # nothing has changed, so there is nothing to wait for
        Path("dvc.yaml").write_text("older")
        with pytest.raises(WorkspaceBusyError):
            make_workspace(workspace)
        run.stdin.close()
    make_workspace(workspace)


@pytest.mark.slow
def test_dvc_finds_the_stages_and_the_code_of_a_workspace(workspace: Path) -> None:
    make_workspace(workspace)
    Path("params.yaml").write_text((PROJECT / "large/params.yaml").read_text())
    code = (
        "from dvc.repo import Repo; from tasks.workspace.dvc_stages import stages_in_order as s; print(*s('compare'));"
        "print(*Repo('.').stage.get_target('prepare').deps[2].status().values())"
    )
    for made in ("data/large", "models/smollm2"):
        (workspace / made).mkdir(parents=True)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    stages, code_status = output.splitlines()[-2:]
    assert stages.split()[0] == "prepare" and stages.split()[-1].endswith(":compare")
    assert "deleted" not in code_status
