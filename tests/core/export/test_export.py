"""Mixtures for other trainers: golden files, the other run, stages, and what is refused."""

from __future__ import annotations

import re

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
    ExportError,
    Mixture,
    Stage,
    export,
    of_label,
    of_training,
    of_weights,
    with_manifest,
)
from velocitune_core.export.formats.levanter import block_counts


def test_every_trainer_s_files_are_as_reviewed() -> None:
    """A golden file changes only by `python tests/helpers/export_samples.py`."""
    assert {path.name: path.read_text() for path in GOLDEN.iterdir()} == golden_files()


def test_another_run_has_its_own_tokens_epochs_and_starts_of_stages() -> None:
    where = Destination(tokens=2 * samples.TOKENS, steps=20, batch_sequences=64)
    found = export(mixture(), FORMATS["levanter"], where)
    assert [stage.step for stage in found.block.stages] == [0, 5, 10]
    assert {row.domain: row.epochs for row in found.rows}["code"] == pytest.approx(1.6)
    assert "mixture_block_size: 320" in found.files[""]


@pytest.mark.parametrize(
    ("given", "run"),
    [
        ({"steps": 4000, "batch_sequences": 64}, (4000, 4000 * 64 * 256, 64)),
        ({"steps": 400}, (400, 10 * samples.TOKENS, 16)),
        ({"batch_sequences": 32}, (40, 2 * samples.TOKENS, 32)),
        ({"tokens": 2 * samples.TOKENS}, (80, 2 * samples.TOKENS, 16)),
        ({"tokens": 2 * samples.TOKENS, "steps": 40}, (40, 2 * samples.TOKENS, 32)),
        ({"tokens": samples.TOKENS + 4000, "steps": 40, "batch_sequences": 16}, (40, samples.TOKENS + 4000, 16)),
    ],
)
def test_the_length_of_the_other_run_follows_from_what_is_given(given: dict, run: tuple[int, int, int]) -> None:
    """As 16 sequences of 256 tokens a step, unless given; tokens may be rounded by a part of a step."""
    block = export(mixture(), FORMATS["streaming"], Destination(**given)).block
    assert (block.steps, block.tokens, block.batch_sequences) == run
    assert block.draws == run[1] // 256


def test_steps_of_an_unknown_batch_are_no_length() -> None:
    planned = Mixture({"a": 0.5, "b": 0.5}, "planned")
    for unknown in ({"steps": 40}, {"steps": 40, "batch_sequences": 16}):
        with pytest.raises(ExportError, match=r"unknown .*give .*--tokens"):
            export(planned, FORMATS["json"], Destination(**unknown))
    whole = Destination(tokens=1000, steps=40, batch_sequences=16)
    assert export(planned, FORMATS["json"], whole).block.tokens == 1000


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


def test_weights_that_changed_once_say_so() -> None:
    run = of_training(samples.train({0: STAGES[0], 20: STAGES[20]}))
    assert "changed once over the run" in run.held().notes[-1]


def test_a_run_whose_weights_never_changed_has_no_stages() -> None:
    again = of_training(samples.train(dict.fromkeys(STAGES, STAGES[0])))
    assert not again.stages and not export(again, FORMATS["nanotron"]).block.stages


def test_the_levanter_block_is_what_its_shares_become() -> None:
    """0.333 of 2048 is 681.98: rounded down, and the largest has the rest; a small domain takes a larger block."""
    assert block_counts({"a": "0.667", "b": "0.333"}, 2048) == {"a": 1367, "b": 681}
    small = Mixture({"a": 0.9997, "b": 0.0003}, "by hand")
    assert "mixture_block_size: 32768" in export(small, FORMATS["levanter"]).files[""]


def test_one_of_the_seeds_and_the_mean_of_all() -> None:
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
        (
            "json",
            {"paths": {"cod": "x"}},
            "paths: cod (did you mean code?): no domain of the mixture; its domains are code, legal",
        ),
        ("json", {"paths": {"": "here"}}, "put {domain} into it"),
        (
            "json",
            {"paths": {"": "data/{domain}", "code": "data/legal"}},
            "paths: data/legal: more than one domain there",
        ),
        ("json", {"tokens": 0}, "tokens: 0 is no number of them; give one from 1"),
        (
            "json",
            {"tokens": samples.TOKENS, "steps": 80, "batch_sequences": 16},
            "tokens: 163840 are not 80 steps of 16 sequences of 256 tokens, which are 327680; leave one",
        ),
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
