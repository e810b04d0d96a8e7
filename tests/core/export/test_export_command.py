"""`velocitune export`: where results are looked for, what is printed and written, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import export_samples as samples
import pytest
from comparison_samples import three_seeds
from export_samples import GOLDEN

from velocitune_core.contracts import StartingWeights
from velocitune_core.export.command import main
from velocitune_core.export.formats import FORMATS


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Results and a manifest as a pipeline leaves them."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "results").mkdir()
    (folder / "prepared").mkdir()
    samples.train().write(folder / "results/train.json")
    samples.manifest().write(folder / "prepared/manifest.json")
    three_seeds().write(folder / "results/comparison.json")
    return folder


def test_tokens_and_epochs_of_each_domain_stand_beside_the_file(workspace: Path, tmp_path: Path) -> None:
    arguments = ["--to", "olmo-core", "--workspace", str(workspace), "--out", str(tmp_path / "mixture.yaml")]
    assert main(arguments) == 0
    beside = json.loads((tmp_path / "mixture-realised.json").read_text())
    assert beside["tokens"] == 163_840 and "mean over its steps" in beside["notes"][0]
    assert beside["domains"]["off"] == {
        "weight": 0.2,
        "written": "0.2",
        "share": pytest.approx(0.2),
        "tokens": 32_768,
        "epochs": pytest.approx(1.28),
        "trained_tokens": 32_768,
    }
    assert (tmp_path / "mixture.yaml").read_text() == (GOLDEN / "olmo-core.yaml").read_text()


def test_the_command_prints_a_file_that_holds_nothing_else(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--paths", "s3://b/{domain}", "off=/data/off"]
    assert main(["--to", "megatron", "--workspace", str(workspace), "--schedule", "mean", *paths]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0.5 s3://b/code 0.3 s3://b/legal 0.2 /data/off\n"
    assert "--data-args-path" in printed.err and "mean over its steps" in printed.err


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_terminal_shows_the_table_once(
    workspace: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the file itself goes elsewhere, by `>`."""
    heading = "What a run of "
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda shown=terminal: shown)
        assert main(["--to", name, "--workspace", str(workspace), "--tokens", "100e3"]) == 0
        printed = capsys.readouterr()
        assert printed.err.count(heading) + printed.out.count(heading) * terminal == 1
    assert FORMATS[name].use in printed.err


@pytest.mark.parametrize(
    ("paths", "places"),
    [
        (["code=s3://c/{domain}/v2", "{domain}"], ["s3://c/code/v2", "legal", "off"]),
        (["{domain}", "off=s3://o?x={domain}"], ["code", "legal", "s3://o?x=off"]),
        (["data/lang={domain}/x"], ["data/lang=code/x", "data/lang=legal/x", "data/lang=off/x"]),
        (["{domain}=a"], ["code=a", "legal=a", "off=a"]),
    ],
)
def test_a_path_is_of_the_domain_before_its_equals_sign(
    workspace: Path, capsys: pytest.CaptureFixture[str], paths: list[str], places: list[str]
) -> None:
    assert main(["--to", "megatron", "--workspace", str(workspace), "--schedule", "mean", "--paths", *paths]) == 0
    assert capsys.readouterr().out.split()[1::2] == places


def test_planned_weights_are_of_one_epoch_unless_a_budget_is_given(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = StartingWeights(strategy="planned", found_by="planned", domain_weights=samples.MEAN)
    planned.write(workspace / "results/weights.json")
    arguments = ["--to", "megatron", "--workspace", str(workspace), "--from", "results/weights.json"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == (GOLDEN / "megatron.txt").read_text()
    assert "a run of 192000 tokens" in printed.err
    for tokens in ("1000", "1e3", "1.0e+3"):
        assert main([*arguments, "--tokens", tokens]) == 0
        assert "a run of 1000 tokens" in capsys.readouterr().err
    for tokens in ("1.5", "1e999999999", "many", "inf"):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments, "--tokens", tokens])
        assert f"--tokens: {tokens!r} is no whole number; give one such as" in capsys.readouterr().err


@pytest.mark.parametrize("found_by", ["planned", "search"])
def test_weights_that_were_found_after_the_training_are_not_overlooked(
    workspace: Path, capsys: pytest.CaptureFixture[str], found_by: Literal["planned", "search"]
) -> None:
    arguments = ["--to", "json", "--workspace", str(workspace)]
    for weights, noted in ((samples.STAGES[0], False), (samples.MEAN, True)):
        found = StartingWeights(strategy="mine", found_by=found_by, domain_weights=weights)
        found.write(workspace / "results/weights.json")
        assert main(arguments) == 0
        assert ("were found for another training; --from results/weights.json" in capsys.readouterr().err) == noted
    assert main([*arguments, "--from", "results/train.json"]) == 0
    assert "another training" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [('{"schema_version": 99}', "has schema version 99"), ("{}", "not a valid StartingWeights file.")],
)
def test_weights_that_cannot_be_read_do_not_stop_the_export_of_a_training(
    workspace: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (workspace / "results/weights.json").write_text(text)
    assert main(["--to", "json", "--workspace", str(workspace)]) == 0
    said = capsys.readouterr().err
    assert "Not compared with the weights of the training: " in said and problem in said


def test_data_that_no_pipeline_prepared_is_counted_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of `velocitune fit`, for a trainer that draws documents."""
    monkeypatch.chdir(tmp_path)
    StartingWeights(strategy="planned", found_by="planned", domain_weights=samples.MEAN).write(Path("fit/weights.json"))
    arguments = ["--to", "ms-swift", "--from", "fit/weights.json"]
    assert main(arguments) == 2
    assert "count them in a file for --manifest" in capsys.readouterr().err
    sizes = [f"  '{name}': {{tokens: {size[0]}.0, documents: {size[1]}}}" for name, size in samples.SIZES.items()]
    Path("counts.yaml").write_text("\n".join(["sequence_length: 256", "domains:", *sizes]))
    run = ["--steps", str(samples.STEPS), "--batch-sequences", str(samples.BATCH)]
    assert main([*arguments, "--manifest", "counts.yaml", *run, "--out", "mixture.txt"]) == 0
    assert Path("mixture.txt").read_text() == (GOLDEN / "ms-swift.txt").read_text()
    off = json.loads(Path("mixture-realised.json").read_text())["domains"]["off"]
    assert (off["tokens"], off["epochs"]) == (pytest.approx(32_768, abs=2), pytest.approx(1.28, abs=1e-4))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("domains: {code: {tokens: 10}}", "manifest: lacks the domains legal, off, spare"),
        (
            "domains: {code: {tokens: 0.5, documents: -1}, x: 3}",
            "domains.code.documents: Input should be greater than 0",
        ),
        (
            "domains: {code: 3.0e+9, web: [3]}",
            "domains.code: 3000000000.0: of tokens, or of documents? Write {tokens: 3000000000}\n"
            "  domains.web: Input should be a mapping of keys to values (got [3])",
        ),
        ("code: 3", "domains: Field required"),
        ("- 1", "neither a manifest of the pipeline nor counts such as domains: {code: {tokens"),
    ],
)
def test_counts_that_are_wrong_are_named(
    workspace: Path, capsys: pytest.CaptureFixture[str], counts: str, message: str
) -> None:
    (workspace / "counts.yaml").write_text(counts)
    assert main(["--to", "json", "--workspace", str(workspace), "--manifest", "counts.yaml"]) == 2
    assert message in capsys.readouterr().err


def test_the_command_writes_a_file_per_phase(workspace: Path, tmp_path: Path) -> None:
    assert main(["--to", "megatron", "--workspace", str(workspace), "--out", str(tmp_path / "blend.txt")]) == 0
    assert (tmp_path / "blend-phases.txt").read_text() == "--phase-transition-iterations 10,20\n"
    assert (tmp_path / "blend-phase-2.txt").read_text() == (GOLDEN / "megatron-stages-phase-2.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "static"], "label: 'static': only a comparison has labels"),
        (
            ["--from", "results/comparison.json"],
            "label: a comparison has several; give one with --label: static, even, velocitune",
        ),
        (["--from", "results/comparison.json", "--label", "even", "--seed", "9"], "seed: 9 has no run of 'even'"),
        (["--from", "prepared/manifest.json"], "from: "),
        (["--from", "results/none.json"], "no such file"),
        (["--paths", "code=a", "code=b"], "paths: 'code=b': the second for code"),
        (
            ["--paths", "cod=s3://c/{domain}/v2"],
            "paths: 'cod=s3://c/{domain}/v2': 'cod' (did you mean code?) is no domain of the mixture; its domains are ",
        ),
    ],
)
def test_the_command_refuses_with_the_field_and_the_fix(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--to", "json", "--workspace", str(workspace), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_manifest_of_other_domains_is_refused_if_given_and_else_left_out(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--to", "json", "--workspace", str(workspace), "--from", "results/comparison.json", "--label", "even"]
    assert main([*arguments, "--manifest", "prepared/manifest.json"]) == 2
    assert "manifest: lacks the domains general, papers" in capsys.readouterr().err
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["shares"]["papers"] == pytest.approx(1 / 3, abs=1e-6)
    assert f"{workspace}/prepared/manifest.json does not fit and is not used: manifest: lacks" in printed.err


def test_the_manifest_beside_the_results_is_used_where_that_of_the_workspace_does_not_fit(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    manifest = samples.manifest()
    spare = manifest.domains["spare"]
    manifest.model_copy(update={"domains": {"spare": spare}}).write(other / "prepared/manifest.json")
    assert main(["--to", "trl", "--tokens", "1000", "--workspace", str(other), "--from", _results(workspace)]) == 0
    assert "does not fit" not in capsys.readouterr().err


def _results(workspace: Path) -> str:
    return str(workspace / "results/train.json")


def test_results_are_those_of_the_workspace_and_files_go_to_the_current_folder(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the current folder has results of that name; a file that is only there is found, too."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/train.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    arguments = ["--to", "json", "--workspace", "work", "--from", "results/train.json", "--out", "mixture.json"]
    assert main([*arguments, "--manifest", "prepared/manifest.json"]) == 0
    assert json.loads((tmp_path / "mixture.json").read_text())["tokens"] == samples.TOKENS
    planned = StartingWeights(strategy="planned", found_by="planned", domain_weights=samples.MEAN)
    planned.write(tmp_path / "fit/weights.json")
    assert main([*arguments[:4], "--from", "fit/weights.json"]) == 0
