"""Mixtures for other trainers: golden files, units, stages, and what is refused."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import export_samples as samples
import pytest
import yaml
from comparison_samples import three_seeds
from export_samples import GOLDEN, STAGES, golden_files, mixture
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.contracts import StartingWeights
from velocitune_core.export import (
    FORMATS,
    Destination,
    DomainSize,
    ExportError,
    Mixture,
    Stage,
    export,
    of_label,
    of_training,
    of_weights,
    with_manifest,
)
from velocitune_core.export.command import main
from velocitune_core.export.formats.levanter import block_counts
from velocitune_core.export.shares import as_text, drawn_shares, token_shares

positive = st.floats(1e-7, 1.0)
counts = st.integers(1, 10**6)


def test_every_trainer_s_files_are_as_reviewed() -> None:
    """A golden file changes only by `python tests/helpers/export_samples.py`."""
    assert {path.name: path.read_text() for path in GOLDEN.iterdir()} == golden_files()


@given(st.lists(positive, min_size=1, max_size=30))
def test_written_shares_sum_to_one_and_keep_three_digits(weights: list[float]) -> None:
    total = sum(weights)
    shares = {str(place): weight / total for place, weight in enumerate(weights)} | {"none": 0.0}
    text = as_text(shares)
    assert sum(map(Fraction, text.values())) == 1 and "none" not in text
    assert all("e" not in each for each in text.values())
    assert {name: float(each) for name, each in text.items()} == pytest.approx(
        {name: share for name, share in shares.items() if share}, rel=0.01
    )


@given(st.lists(st.tuples(positive, counts, counts), min_size=1, max_size=20))
def test_documents_of_their_mean_length_give_the_shares_of_the_tokens(rows: list[tuple[float, int, int]]) -> None:
    """Drawing N·p documents of each domain's mean length gives each its share of the tokens."""
    total = sum(weight for weight, *_ in rows)
    shares = {str(place): weight / total for place, (weight, *_) in enumerate(rows)}
    sizes = {str(place): DomainSize(tokens, documents) for place, (_, tokens, documents) in enumerate(rows)}
    drawn = drawn_shares(shares, "documents", sizes)
    tokens = {name: drawn[name] * sizes[name].tokens / sizes[name].documents for name in shares}  # type: ignore[operator]
    assert sum(drawn.values()) == pytest.approx(1)
    assert {name: each / sum(tokens.values()) for name, each in tokens.items()} == pytest.approx(shares)
    assert token_shares(drawn, "documents", sizes) == pytest.approx(shares)


def test_documents_by_hand() -> None:
    """0.5, 0.3, 0.2 of the tokens over 2560, 256 and 25.6 tokens per document: 1 : 6 : 40."""
    text = export(mixture(), FORMATS["datasets"]).block.shares
    assert {name: float(share) for name, share in text.items()} == pytest.approx(
        {"code": 1 / 47, "legal": 6 / 47, "off": 40 / 47}, abs=1e-6
    )


def test_tokens_and_epochs_of_each_domain_stand_beside_the_file(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
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


def test_another_run_has_its_own_tokens_epochs_and_starts_of_stages() -> None:
    where = Destination(tokens=2 * samples.TOKENS, steps=20, batch_sequences=64)
    found = export(mixture(), FORMATS["levanter"], where)
    assert [stage.step for stage in found.block.stages] == [0, 5, 10]
    assert {row.domain: row.epochs for row in found.rows}["code"] == pytest.approx(1.6)
    assert "mixture_block_size: 320" in found.files[""]


def test_joined_stages_keep_the_mean_of_the_run() -> None:
    """Of 10 + 10 + 20 steps two stages of 20 are made; the first is the mean of what it joins."""
    block = export(mixture(), FORMATS["nanotron"], Destination(max_stages=2)).block
    assert [(each.step, each.steps) for each in block.stages] == [(0, 20), (20, 20)]
    assert block.stages[0].shares == {"code": "0.55", "legal": "0.3", "off": "0.15"}
    assert block.stages[1].shares == {"code": "0.45", "legal": "0.3", "off": "0.25"}


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=12), st.integers(1, 12))
def test_joining_stages_never_changes_the_mean_of_the_run(parts: list[tuple[int, float]], most: int) -> None:
    starts = [sum(span for span, _ in parts[:place]) for place in range(len(parts) + 1)]
    stages = [Stage(start, {"a": share, "b": 1 - share}) for start, (_, share) in zip(starts, parts, strict=False)]
    whole = Mixture({"a": 0.5, "b": 0.5}, "drawn", stages, steps=starts[-1])
    joined = whole.merged(most)
    assert len(joined.stages) <= most
    assert _mean(joined) == pytest.approx(_mean(whole))


def _mean(run: Mixture) -> float:
    assert run.steps is not None
    return sum(span * each.shares["a"] for span, each in zip(run.spans(), run.stages, strict=True)) / run.steps


def test_one_stage_is_the_mean() -> None:
    assert export(mixture(), FORMATS["megatron"], Destination(max_stages=1)).files == {
        "": (GOLDEN / "megatron.txt").read_text()
    }


def test_a_run_whose_weights_never_changed_has_no_stages() -> None:
    again = of_training(samples.train(dict.fromkeys(STAGES, STAGES[0])))
    assert not again.stages and not export(again, FORMATS["nanotron"]).block.stages


def test_the_levanter_block_is_what_its_shares_become() -> None:
    """0.333 of 2048 is 681.98: rounded down, and the largest has the rest; a small domain takes a larger block."""
    assert block_counts({"a": "0.667", "b": "0.333"}, 2048) == {"a": 1367, "b": 681}
    small = Mixture({"a": 0.9997, "b": 0.0003}, "by hand")
    assert "mixture_block_size: 32768" in export(small, FORMATS["levanter"]).files[""]


def test_one_of_the_seeds_and_the_mean_of_all(tmp_path: Path) -> None:
    comparison = three_seeds()
    mean, one = of_label(comparison, "velocitune"), of_label(comparison, "velocitune", 2)
    assert mean.shares == pytest.approx({"code": 0.3, "general": 0.2, "papers": 0.5})
    assert not mean.stages and "steps and seeds" in mean.notes[0]
    assert [stage.step for stage in one.stages] == [0, 5]
    assert {name: size.tokens for name, size in one.sizes.items()} == {"code": 600, "general": 100, "papers": 300}


def test_weights_that_a_training_only_starts_from_say_so() -> None:
    weights = StartingWeights(strategy="velocitune", found_by="initial", domain_weights={"a": 0.5, "b": 0.5})
    assert "The training starts from these weights" in of_weights(weights).notes[0]
    held = StartingWeights(strategy="planned", found_by="planned", domain_weights={"a": 0.5, "b": 0.5})
    assert of_weights(held).notes == []


@pytest.mark.parametrize(
    ("to", "where", "message"),
    [
        ("trl", {}, "fraction: 163840 tokens are more than one epoch of some domains (off 1.280)"),
        ("olmo-core", {"schedule": "stages"}, "schedule: stages: OLMo-core holds one mixture for the whole run"),
        ("megatron", {"unit": "documents"}, "unit: megatron draws sequences, not documents"),
        (
            "megatron",
            {"paths": {"": "my data/{domain}"}},
            "paths: 'my data/code' of code: the file is split at white space",
        ),
        ("llama-factory", {"paths": {"code": "a,b"}}, "paths: 'a,b' of code: names are separated by commas"),
        ("json", {"paths": {"cod": "x"}}, "paths: cod: no domain of the mixture; its domains are code, legal"),
        ("json", {"paths": {"": "here"}}, "put {domain} into it"),
        (
            "json",
            {"paths": {"": "data/{domain}", "code": "data/legal"}},
            "paths: data/legal: more than one domain there",
        ),
        ("json", {"tokens": 0}, "tokens: 0 is no number of them; give one from 1"),
        ("json", {"max_stages": 0}, "max_stages: 0"),
        ("megatron", {"steps": 2}, "steps: 2 are too few for 3 stages"),
        ("levanter", {"batch_sequences": 1, "steps": 8}, "mixture_block_size: 2: no sequence of a block is of legal"),
    ],
)
def test_what_a_trainer_cannot_express_is_refused_with_its_fix(to: str, where: dict, message: str) -> None:
    with pytest.raises(ExportError) as refused:
        export(mixture(), FORMATS[to], Destination(**where))
    assert message in str(refused.value)


def test_the_tokens_that_a_refusal_names_are_accepted() -> None:
    with pytest.raises(ExportError) as refused:
        export(mixture(), FORMATS["trl"])
    (most,) = re.findall(r"give --tokens (\d+) or less", str(refused.value))
    epochs = [row.epochs for row in export(mixture(), FORMATS["trl"], Destination(tokens=int(most))).rows]
    assert max(filter(None, epochs)) == pytest.approx(1, abs=1e-4)


def test_units_and_stages_that_nothing_is_known_of_are_refused() -> None:
    unknown = of_training(samples.train())  # without a manifest
    with pytest.raises(ExportError, match=r"unit: documents of 'code' are not counted.*--manifest"):
        export(unknown, FORMATS["ms-swift"])
    assert export(unknown, FORMATS["ms-swift"], Destination(unit="sequences")).block.shares["code"] == "0.5"
    with pytest.raises(ExportError, match="batch_sequences: not known"):
        export(unknown, FORMATS["levanter"])


def test_a_manifest_of_other_data_is_refused() -> None:
    other = samples.manifest()
    code = other.domains["code"]
    more = code.model_copy(update={"train": code.train.model_copy(update={"tokens": 1})})
    with pytest.raises(ExportError, match="manifest: code has 1 tokens, and the results were made from 102400"):
        with_manifest(
            of_training(samples.train()), other.model_copy(update={"domains": other.domains | {"code": more}})
        )
    with pytest.raises(ExportError, match="manifest: lacks the domains code"):
        less = {name: each for name, each in other.domains.items() if name != "code"}
        with_manifest(of_training(samples.train()), other.model_copy(update={"domains": less}))


def test_names_that_yaml_would_misread_arrive_as_they_are() -> None:
    odd = Mixture({"off": 0.25, "a: b": 0.25, 'it\'s "x"': 0.5}, "by hand")
    for name in ("olmo-core", "nanotron", "levanter", "streaming", "trl"):
        where = Destination(unit="sequences", paths={"": "{domain}"})
        text = export(odd, FORMATS[name], where).files[""]
        assert set(odd.shares) <= set(_strings(yaml.safe_load(text))), name


def _strings(tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [each for pair in tree.items() for part in pair for each in _strings(part)]
    if isinstance(tree, list):
        return [each for part in tree for each in _strings(part)]
    return [tree] if isinstance(tree, str) else []


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return _workspace(tmp_path)


def _workspace(folder: Path) -> Path:
    """Write results and a manifest as a pipeline leaves them."""
    (folder / "results").mkdir()
    (folder / "prepared").mkdir()
    samples.train().write(folder / "results/train.json")
    samples.manifest().write(folder / "prepared/manifest.json")
    three_seeds().write(folder / "results/comparison.json")
    return folder


def test_the_command_prints_a_file_that_holds_nothing_else(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--paths", "s3://b/{domain}", "off=/data/off"]
    assert main(["--to", "megatron", "--workspace", str(workspace), "--schedule", "mean", *paths]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0.5 s3://b/code 0.3 s3://b/legal 0.2 /data/off\n"
    assert "--data-args-path" in printed.err and "mean over its steps" in printed.err


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
    assert main([*arguments, "--tokens", "1000"]) == 0
    assert "a run of 1000 tokens" in capsys.readouterr().err


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
            "label: None is none of the comparison; give one of static, even, velocitune",
        ),
        (["--from", "results/comparison.json", "--label", "even", "--seed", "9"], "seed: 9 has no run of 'even'"),
        (["--from", "prepared/manifest.json"], "from: "),
        (["--from", "results/none.json"], "no such file"),
        (["--paths", "code=a", "code=b"], "paths: 'code=b': the second for code"),
    ],
)
def test_the_command_refuses_with_the_field_and_the_fix(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--to", "json", "--workspace", str(workspace), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_comparison_of_other_domains_than_the_manifest_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--from", "results/comparison.json", "--label", "even"]
    assert main(["--to", "json", "--workspace", str(workspace), *arguments]) == 2
    assert "manifest: lacks the domains general, papers" in capsys.readouterr().err
