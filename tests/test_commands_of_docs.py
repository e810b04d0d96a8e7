"""The commands of README and docs that need no pipeline, `velocitune fit` and `velocitune export`, are run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import export_samples as samples
import pytest
from docs_pages import PROJECT, blocks_of, commands, shell_blocks

from velocitune_core.cli.command import main
from velocitune_core.contracts import StartingWeights

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of code, in five runs
FEW = ["--bootstrap", "4"]  # the last one counts
RUN = [
    (block.page.name, words[1:])
    for block in shell_blocks()
    for words in commands(block)
    if words[:2] in (["velocitune", "fit"], ["velocitune", "export"])
]


def write_table(file: str, weights: Sequence[str], losses: Sequence[str]) -> None:
    """Write runs of code and web; names of columns have {} for the domain."""
    columns = {"run": [f"run-{number}" for number, _ in enumerate(SHARES)]}
    for domain, shares in {"code": SHARES, "web": [1 - share for share in SHARES]}.items():
        columns |= {name.format(domain): [f"{share:.2f}" for share in shares] for name in weights}
        columns |= {
            name.format(domain): [f"{1.5 + (1 + 6 * share) ** -0.4:.4f}" for share in shares] for name in losses
        }
    rows = [columns, *zip(*columns.values(), strict=True)]
    Path(file).write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")


@pytest.fixture
def _what_the_pages_speak_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder: tables, their objective and weights, counts, and results of a run, also in `work`."""
    monkeypatch.chdir(tmp_path)
    write_table("runs.csv", ["weight/{}", "share_{}"], ["loss/{}", "eval/{}_loss"])
    write_table("ratios.csv", ["{}"], [])
    write_table("metrics.csv", [], ["{}"])
    write_table("train_mixture_1m.csv", ["train_the_pile_{}"], [])
    write_table("train_pile_loss_1m.csv", [], ["metric/the_pile_{}_val_loss"])
    for page, file in (("FIT.md", "objective.yaml"), ("EXPORT.md", "counts.yaml")):
        (shown,) = (block.text for block in blocks_of(PROJECT / "docs" / page) if block.language == "yaml")
        Path(file).write_text(shown, encoding="utf-8")
    found = StartingWeights(strategy="planned", found_by="planned", domain_weights={"code": 0.6, "web": 0.4})
    found.model_copy(update={"inputs": {"tables": "runs.csv", "objective": "macro"}}).write(Path("fit/weights.json"))
    for folder in (Path(), Path("work")):
        samples.train().write(folder / "results/train.json")
        StartingWeights(strategy="static", found_by="initial", domain_weights=samples.MEAN).write(
            folder / "results/weights.json"
        )
        samples.manifest().write(folder / "prepared/manifest.json")


@pytest.mark.usefixtures("_what_the_pages_speak_of")
@pytest.mark.parametrize(("page", "arguments"), RUN, ids=[f"{page}: {' '.join(words)}" for page, words in RUN])
def test_the_command_runs(page: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fits, written = arguments[0] == "fit", arguments[arguments.index("--out") + 1] if "--out" in arguments else None
    if fits:
        shutil.rmtree("fit")
    assert main([*arguments, *(FEW if fits else [])]) == 0
    printed = capsys.readouterr().out
    if fits:
        assert "code" in printed and (Path(written or "fit") / "plan.html").is_file(), page
    else:
        assert Path(written).is_file() if written else "code" in printed, page


def test_there_are_such_commands() -> None:
    assert {page for page, _ in RUN} == {"README.md", "FIT.md", "EXPORT.md"}
