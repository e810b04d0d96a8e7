"""All problems of a workspace are reported at once, before any work."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace import paths
from tasks.workspace.preflight import checked_params, checked_settings
from velocitune_core.config import ConfigError

PROJECT = Path(__file__).parents[3]
Tree = dict[str, Any]


@pytest.fixture
def valid(workspace: Path, settings: Tree, tiny_inputs: Path) -> Tree:
    """A valid workspace, and its settings."""
    shutil.copyfile(PROJECT / "dvc.yaml", paths.PIPELINE)
    Path("data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        Path(f"data/raw/{name}.jsonl").write_text('{"text": "a document"}\n')
    shutil.copytree(tiny_inputs / "model", "models/mine")
    settings["data"]["sequence_length"] = 16
    write(settings)
    checked_params()
    return settings


def write(tree: Tree) -> None:
    paths.PARAMS.write_text(yaml.safe_dump(tree, sort_keys=False))


def problems(tree: Tree) -> list[str]:
    """Return the problems that are reported for these settings, a line each."""
    write(tree)
    with pytest.raises(ConfigError) as refused:
        checked_params()
    heading, *lines = str(refused.value).splitlines()
    assert heading == "params.yaml:"
    return [line.strip() for line in lines]


def no_model(tree: Tree) -> None:
    tree["model"]["path"] = "models/nowhere"


def pickled_model(tree: Tree) -> None:
    shutil.copytree("models/mine", "models/pickled")
    Path("models/pickled/model.safetensors").rename("models/pickled/pytorch_model.bin")
    tree["model"]["path"] = "models/pickled"


def base_not_described(tree: Tree) -> None:
    tree["model"]["path"] = "models/base"


def base_of_unknown_domain(tree: Tree) -> None:
    tree["model"]["path"] = "models/base"
    tree["base"] = {"domains": ["poetry"], "training": tree["training"]}


@pytest.mark.parametrize(
    ("break_model", "expected"),
    [
        (no_model, "model.path: 'models/nowhere' is not a folder"),
        (pickled_model, "model.path: models/pickled has no .safetensors weights"),
        (base_not_described, "base: missing"),
        (base_of_unknown_domain, "base.domains: poetry are no domains; choose from code, law, recipes"),
    ],
)
def test_all_problems_are_reported_at_once(valid: Tree, break_model: Callable[[Tree], None], expected: str) -> None:
    break_model(valid)
    valid["strategy"]["name"] = "velocitone"
    Path("data/raw/law.jsonl").unlink()
    valid["domains"]["recipes"] = {"source": {"type": "jsonl", "path": "recipes.jsonl"}}
    del valid["targets"], valid["training"]["token_budget"]
    found = problems(valid)
    assert sum(line.startswith(("model.path", "base")) for line in found) == 1
    assert any(line.startswith(expected) for line in found)
    assert any(line.startswith("strategy: strategy 'velocitone' is unknown") for line in found)
    assert any(line.startswith("domains.law.source: ") and "law.jsonl" in line for line in found)
    assert any(line.startswith("domains.recipes.source: ") and "recipes.jsonl" in line for line in found)
    assert "targets: missing, and dvc.yaml watches it; set it" in found
    assert "training.token_budget: missing, and dvc.yaml watches it; set it" in found
    assert len(found) == 6


def test_every_reason_why_a_model_cannot_be_trained_is_reported(valid: Tree) -> None:
    config = {"model_type": "mixtral", "quantization_config": {"quant_method": "gptq"}}
    config |= {"output_router_logits": True, "router_aux_loss_coef": 0.02}
    Path("models/mine/config.json").write_text(json.dumps(config))
    Path("models/mine/tokenizer.json").unlink()
    found = problems(valid)
    assert len(found) == 3 and all(line.startswith("model.path: models/mine") for line in found)


def test_a_wrong_option_of_the_strategy_is_reported(valid: Tree) -> None:
    valid["strategy"]["options"] = {"gap_policy": "hope"}
    assert len(found := problems(valid)) == 1 and "hope" in found[0]


def test_a_sibling_without_a_shape_has_two_ways_out(valid: Tree) -> None:
    base_of_unknown_domain(valid)
    valid["base"]["domains"] = None
    valid["strategy"] = {"name": "planned"}
    valid["mixture"]["swarm"] = {"runs": 8, "model": "models/base/sibling"}
    (problem,) = [line for line in problems(valid) if line.startswith("mixture")]
    assert problem.endswith("if base.sibling has its shape; set that, or set mixture.swarm.model to null")


def test_all_that_is_wrong_with_a_plan_is_reported_at_once(valid: Tree) -> None:
    valid["strategy"] = {"name": "planned"}
    valid["mixture"] |= {
        "objective": {"average": "micro", "least_share": 0.2, "retained": ["nothing"]},
        "swarm": {"runs": 2, "min_share": 0.9, "model": "models/base/sibling"},
    }
    found = problems(valid)
    assert any("mixture.objective.average 'micro' is not known" in line for line in found)
    assert any("mixture.objective.retained names nothing" in line for line in found)
    assert any("mixture.swarm.runs: 2 runs are too few for a law of 2 domains; at least 3" in line for line in found)
    assert any("mixture.swarm: min_share is 0.9" in line for line in found)
    assert any("mixture.swarm.model: models/base/sibling is a sibling of models/base, not of" in line for line in found)
    valid["mixture"] = {
        "swarm": {"runs": 8, "rounds": {"first": 9}, "bootstrap": 0, "model_runs": 1},
    }
    found = problems(valid)
    assert any("mixture.swarm.rounds.first: 9 runs are more than the 8 that" in line for line in found)
    assert any("mixture.swarm.bootstrap: 0, but rounds are decided by resamples" in line for line in found)
    assert any("mixture.swarm.model_runs: the swarm trains the model itself" in line for line in found)
    assert any("mixture.swarm.model_runs: 1; give 0, or two and more" in line for line in found)
    valid["strategy"] = {"name": "planned", "options": {"swarm": {"runs": 0}}}
    assert "strategy.options: swarm.runs: " in "".join(problems(valid))


@pytest.mark.parametrize("check", [checked_params, checked_settings])
def test_budgets_that_no_run_can_have_are_refused_together_before_any_work(
    valid: Tree, check: Callable[..., object]
) -> None:
    """A step has 16 sequences of 16 tokens."""

    def refused(budget: int, **changes: Any) -> list[str]:
        valid["training"] |= {"token_budget": budget}
        write(valid | changes)
        with pytest.raises(ConfigError) as found:
            check({}, True) if check is checked_settings else check(True)
        return [line.strip() for line in str(found.value).splitlines()[1:]]

    shutil.copytree(PROJECT / "comparison", "comparison", ignore=lambda *_: ["report"])
    valid["downstream"] = {"instances": 1}
    valid["compare"] = {"seeds": [1], "runs": {"static": {"strategy": "static"}, "own": {"strategy": "velocitune"}}}
    base = {"vocabulary_size": 300, "training": valid["training"] | {"token_budget": 200}}
    assert refused(255, base=base, model={"path": "models/base"}) == [
        "base.training.token_budget: 200 tokens make 12 sequences of 16, less than one step of 16; give at least 256, "
        "or lower base.training.batch_sequences",
        "training.token_budget: 255 tokens make 15 sequences of 16, less than one step of 16; give at least 256, or "
        "lower training.batch_sequences",
    ]
    too_few = "training.token_budget: in 2 steps, the points of {} are at steps 1, 2, and a scaling law needs 3 of "
    proxies = too_few.format("proxies.fractions") + "different size; give at least 1024"
    assert refused(512) == [proxies]
    valid["compare"]["runs"]["own"]["targets"] = {"fractions": [0.9], "points": "intermediate"}
    assert refused(512) == [
        proxies,
        too_few.format("compare.runs.own.targets") + "different size; give at least 768",
    ]
    valid["training"]["schedule"] = {"warmup_steps": 9}
    (warmup,) = refused(10 * 256)
    assert "a warm-up of 9 steps does not end in the proxies of 0.2 (2 steps: at most" in warmup
    assert "the training" not in warmup
    valid["training"] |= {"schedule": {}}
    near = refused(40 * 256, proxies={"fractions": [0.2, 0.2 + 1e-12, 0.3]})  # which no budget tells apart
    ending = "at steps 8, 12, and a scaling law needs 3 of different size; take sizes that are further apart"
    assert any(line.endswith(ending) for line in near)
    valid["training"] |= {"token_budget": 4 * 256}
    write(valid)
    check({}, True) if check is checked_settings else check(True)


def test_wrong_fields_are_reported_together(valid: Tree) -> None:
    valid["training"]["batch_sequences"] = 0
    valid["colour"] = "blue"
    valid["strategy"]["name"] = "velocitone"
    assert sorted(line.split(":")[0] for line in problems(valid)) == ["colour", "strategy", "training.batch_sequences"]


def make_gpt2(folder: Path, *, embeddings: int) -> None:
    """A model with 16 learned positions, and a tokenizer of 257 ids without an end of text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|pad|>"])
    shape = GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=16, vocab_size=embeddings)
    GPT2LMHeadModel(shape).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>").save_pretrained(folder)


def test_model_tokenizer_and_data_that_do_not_go_together_are_refused_at_once(valid: Tree) -> None:
    shutil.rmtree("models/mine")
    make_gpt2(Path("models/mine"), embeddings=200)
    valid["data"] |= {"sequence_length": 32, "document_start": "<|begin|>"}
    write(valid)
    with pytest.raises(ConfigError) as refused:
        checked_params()
    _, length, vocabulary, start, end = (line.strip() for line in str(refused.value).splitlines())
    assert re.fullmatch(
        r"data.sequence_length: 32, .* 16 positions, each with a learned .* set it to 16 or less", length
    )
    with pytest.raises(ConfigError, match=r"data\.sequence_length: 32, .* set it to 16 or less"):
        checked_settings({})  # a plan refuses what a run would
    assert re.fullmatch(r"model.path: .* token ids up to 255, .* 200 embeddings; .*embeddings\(256\)", vocabulary)
    assert start.startswith("data.document_start: '<|begin|>' is 9 tokens of the tokenizer, not one; name a special")
    assert end.startswith("data.document_end: 'auto', and the tokenizer has no end-of-text token; name one")
    shutil.rmtree("models/mine")
    make_gpt2(Path("models/mine"), embeddings=320)  # padded: more embeddings than tokens
    valid["data"] |= {"sequence_length": 16, "document_start": "<|pad|>"}
    write(valid)
    checked_params()


def test_borders_that_no_tokenizer_of_a_base_can_have_are_refused_with_its_other_problems(valid: Tree) -> None:
    """Before the tokenizer is trained, which has a special token and may make one of any word."""
    base_of_unknown_domain(valid)
    valid["data"]["document_start"] = "<|begin|>"
    start, domains = problems(valid)
    assert start.startswith("data.document_start: '<|begin|>' is 3 tokens of the tokenizer, not one; name a special")
    assert domains.startswith("base.domains: poetry")
    valid["base"]["domains"] = None
    valid["data"] |= {"document_start": None, "document_end": None, "document_mask": True}
    assert [line[:45] for line in problems(valid)] == ["data.document_mask: true, and no token separa"]
    valid["data"] |= {"document_end": "word", "document_mask": False}
    write(valid)
    checked_params()


def test_a_model_that_cannot_be_masked_is_refused_with_the_other_problems(valid: Tree) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    shutil.rmtree("models/mine")
    make_gpt2(Path("models/mine"), embeddings=320)  # the tokenizer of it
    BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=200)).save_pretrained("models/mine")
    valid["data"] |= {"sequence_length": 16, "document_start": "<|pad|>", "document_mask": True}
    write(valid)
    with pytest.raises(ConfigError) as refused:
        checked_params()
    _, mask, vocabulary = (line.strip() for line in str(refused.value).splitlines())
    assert "token ids up to 256" in vocabulary
    assert re.fullmatch(r"data\.document_mask: true, .* a bloom model inside a document; set it to false", mask)


def test_more_rotary_positions_than_the_model_has_seen_are_warned_of(
    valid: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    valid["data"]["sequence_length"] = 32
    write(valid)
    with caplog.at_level(logging.WARNING):
        checked_params()
    assert re.search(r"data\.sequence_length: \d+, .* has 16 positions: .* set it to 16 or less", caplog.text)


def test_rows_longer_than_a_table_of_positions_are_refused(valid: Tree) -> None:
    """Packing took hours before the first step failed: GPT-J keeps its table as a buffer, not among its weights."""
    from transformers import GPTJConfig, GPTJForCausalLM

    shutil.rmtree("models/mine")
    make_gpt2(Path("models/mine"), embeddings=320)  # the tokenizer of it
    shape = GPTJConfig(n_embd=16, n_layer=1, n_head=2, rotary_dim=4, n_positions=16, vocab_size=320)
    GPTJForCausalLM(shape).save_pretrained("models/mine")
    valid["data"] |= {"sequence_length": 32, "document_start": "<|pad|>"}
    assert [line for line in problems(valid) if re.search("sequence_length: 32, .* has 16 positions, none", line)]
    valid["data"]["sequence_length"] = 16
    write(valid)
    checked_params()


def test_sources_made_by_the_pipeline_need_not_exist(valid: Tree) -> None:
    valid["data"]["path"] = "data/embedded"
    assert len(found := problems(valid)) == 1 and found[0].startswith(
        "domains.law.source.path: 'law.jsonl' is not among"
    )
    valid["domains"]["law"]["source"]["path"] = "legal.jsonl"
    write(valid)
    assert checked_params().data.path == "data/embedded"


def test_a_strategy_that_dvc_does_not_watch_is_warned_of(
    valid: Tree, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    Path("ours_unwatched.py").write_text(
        "from velocitune_core.strategies import Strategy\nclass Mine(Strategy):\n    pass\n"
    )
    valid["strategy"]["name"] = "ours_unwatched:Mine"
    write(valid)
    with caplog.at_level(logging.WARNING):
        checked_params()
    (record,) = caplog.records
    assert f"does not watch {Path.cwd() / 'ours_unwatched.py'}" in record.getMessage()
    assert "`dvc repro --force --single-item train`" in record.getMessage()


def test_a_missing_file_is_named(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: no such file"):
        checked_params()


def test_a_comparison_is_checked_only_before_comparing(valid: Tree) -> None:
    Path("comparison").mkdir()
    Path("comparison/dvc.yaml").write_text("stages: {}\n")
    runs = {"static": {"strategy": "static"}, "mine": {"strategy": "velocitoon"}}
    valid["compare"] = {
        "seeds": [1],
        "baseline": "static",
        "frontier": ["static"],
        "retained": ["poetry"],
        "runs": runs,
    }
    write(valid)
    checked_params()
    with pytest.raises(ConfigError) as refused:
        checked_params(comparing=True)
    assert "compare.runs.mine: strategy: strategy 'velocitoon' is unknown" in str(refused.value)
    assert "compare.retained: poetry are no domains" in str(refused.value)
    one = {"fractions": [0.2], "points": "intermediate"}
    runs = {"static": {"strategy": "static", "targets": one}, "held": {"strategy": "planned", "weights_of": "static"}}
    runs |= {"zero": {"strategy": "planned", "targets": "zero"}}
    valid["compare"] = {"seeds": [1], "runs": runs}
    write(valid)
    with pytest.raises(ConfigError) as refused:
        checked_params(comparing=True)
    assert "compare.runs.static.targets: static has no use for targets of its own" in str(refused.value)
    assert "compare.runs.zero.targets: planned has no use for the targets 'zero'" in str(refused.value)
    assert "compare.runs.held.weights_of: its run holds the weights of static, and planned finds" in str(refused.value)
    del valid["compare"]
    write(valid)
    with pytest.raises(ConfigError, match="compare: missing"):
        checked_params(comparing=True)
