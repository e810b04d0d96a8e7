"""DVC's own commands are silent about stages that were never to be made."""

from __future__ import annotations

import json
import re
from contextlib import chdir
from pathlib import Path

import networkx
import pytest
from dvc_clone import PROJECT, dvc, git, make_clone, pretend, save

from tasks.workspace import paths
from tasks.workspace.dvc_stages import repository, stages_in_order
from tasks.workspace.optional_stages import HIDDEN, hide, show_used_stages
from tasks.workspace.params_file import override_params, params_tree

UP_TO_DATE = "Data and pipelines are up to date."


@pytest.fixture
def clone(workspace: Path) -> Path:
    """A clone of the project, which is the current folder."""
    make_clone()
    return Path.cwd()


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command of DVC prints."""
    capsys.readouterr()
    ended = dvc(*arguments)
    printed = capsys.readouterr()
    assert ended == status, printed
    return (printed.out + printed.err).strip()


@pytest.mark.slow
def test_after_the_pipeline_dvc_has_nothing_to_say_here_and_in_another_clone(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [each.rpartition(":")[2] for each in pretend()][:3] == ["corpus", "base", "prepare"]
    assert (said(capsys, "status"), said(capsys, "checkout")) == (UP_TO_DATE, "")
    assert "Everything is up to date" in said(capsys, "pull")  # no remote is named
    store = tmp_path / "store"
    said(capsys, "remote", "add", "--quiet", "--default", "store", str(store))
    save("results")
    assert "pushed" in said(capsys, "push")
    git("clone", "--quiet", ".", str(tmp_path / "another"))
    with chdir(tmp_path / "another"):
        assert "fetched" in said(capsys, "pull")
        assert (said(capsys, "status"), said(capsys, "checkout")) == (UP_TO_DATE, "")
        assert (said(capsys, "pull"), git("status", "--short")) == ("Everything is up to date.", "")


@pytest.mark.slow
def test_with_data_and_a_model_of_ones_own_the_embedded_ones_are_hidden(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for own in ("data/raw", "models/mine"):
        Path(own).mkdir(parents=True)
        (Path(own) / "file").write_text(own)
    override_params({"data.path": "data/raw", "model.path": "models/mine"})
    assert pretend()[0] == "prepare"
    assert (said(capsys, "status"), said(capsys, "checkout")) == (UP_TO_DATE, "")
    override_params({"data.path": "data/embedded"})
    assert stages_in_order()[:2] == ["inputs/corpus/dvc.yaml:corpus", "prepare"]
    assert stages_in_order("mixture")[-2:] == ["targets", "weights"]


@pytest.mark.slow
def test_a_fresh_clone_lists_every_stage_and_can_do_without_results(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = re.findall(r"^\S*?(\w+):$", said(capsys, "status"), flags=re.MULTILINE)
    page = (PROJECT / "docs/DVC.md").read_text()
    assert set(listed) == {*re.findall(r"(?:-->|-\.->) (\w+)$", page, flags=re.MULTILINE), "corpus"}
    assert said(capsys, "data", "status") == "No changes."
    for command in ("checkout", "pull"):
        assert f"dvc {command} --allow-missing" in page
        said(capsys, command, "--allow-missing")


def test_a_comparison_can_begin_a_clone_and_is_hidden_by_a_report_without_one(
    clone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hidden, lock = Path("comparison/.dvcignore"), Path("comparison/dvc.lock")
    show_used_stages(params_tree())  # as in every stage of the next command
    dvc("repro", "--dry", "comparison/dvc.yaml")  # ends at the second stage, as the first makes nothing
    assert "Running stage 'inputs/corpus/dvc.yaml:corpus'" in caplog.text and ":base" in caplog.text
    assert stages_in_order()[-1] == "report" and hidden.read_text() == HIDDEN
    assert dvc("repro", "--dry", "comparison/dvc.yaml") != 0
    assert stages_in_order("compare")[-1] == "comparison/dvc.yaml:compare" and not hidden.exists()
    show_used_stages(params_tree(), reporting=True)  # as the stage `report` of `dvc repro`
    assert hidden.exists()
    lock.touch()  # of an earlier comparison
    show_used_stages(params_tree(), reporting=True)
    assert not hidden.exists()


def test_plots_overlay_the_lines_of_two_results(clone: Path) -> None:
    columns = {"domain_weights": "weight", "held_out_losses": "loss"}
    for level in (0.5, 0.6):
        lines = Path("report/lines")
        lines.mkdir(parents=True, exist_ok=True)
        for name, column in columns.items():
            points = [(0, "code", 0.4), (9, "code", level), (0, "law", 0.6)]
            rows = [dict(zip(("tokens", "domain", column), point, strict=True)) for point in points]
            (lines / f"{name}.json").write_text(json.dumps(rows))
        git("add", "--force", "report/lines")
        save(f"result {level}")
    assert dvc("plots", "diff", "HEAD~1", "HEAD", "--out", "plots") == 0
    page = Path("plots/index.html").read_text()
    specs = [json.JSONDecoder().raw_decode(page, found.end())[0] for found in re.finditer("var spec = ", page)]
    specs = [spec for spec in specs if spec]  # the folder of figures is empty here
    assert [spec["spec"]["encoding"]["y"]["field"] for spec in specs] == [*columns.values()]
    for spec, column in zip(specs, columns.values(), strict=True):
        points = {(each["rev"], each["tokens"], each["domain"], each[column]) for each in spec["data"]["values"]}
        assert {("HEAD~1", 9, "code", 0.5), ("HEAD", 9, "code", 0.6)} <= points and len(points) == 6
        assert spec["facet"]["field"] == "domain" and spec["spec"]["encoding"]["color"]["field"] == "rev"


def test_what_a_user_ignores_stays_ignored(workspace: Path) -> None:
    ignored, base = Path("inputs/base/.dvcignore"), {"model": {"path": str(paths.BASE_MODEL)}}
    ignored.parent.mkdir(parents=True)
    ignored.write_text("notes.txt\n")
    show_used_stages(base)
    assert ignored.read_text() == "notes.txt\n"
    hide(paths.BASE_PIPELINE)
    assert ignored.read_text() == f"notes.txt\n{HIDDEN}"
    show_used_stages(base)
    assert ignored.read_text() == "notes.txt\n"


def test_the_picture_of_the_stages_is_what_dvc_sees(clone: Path) -> None:
    show_used_stages(params_tree(), comparing=True)
    with repository() as repo:
        needs = repo.index.graph
        arrows = {(last.addressing.split(":")[-1], first.addressing.split(":")[-1]) for first, last in needs.edges}
    expected = set(networkx.transitive_reduction(networkx.DiGraph(arrows)).edges)
    page = (PROJECT / "docs/DVC.md").read_text()
    assert set(re.findall(r"^  (\w+) (?:-->|-\.->) (\w+)$", page, flags=re.MULTILINE)) == expected


def test_a_model_of_ones_own_is_ignored_by_git_and_can_be_added(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models/mine").mkdir()
    Path("models/mine/model.safetensors").write_text("large")
    assert git("status", "--short") == ""
    said(capsys, "add", "--quiet", "models/mine")
    assert git("status", "--short", "models").split() == ["A", "models/mine.dvc"]
