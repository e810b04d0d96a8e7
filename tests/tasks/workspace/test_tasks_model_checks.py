"""The model of params.yaml is opened before any work: once in each state, and what is wrong is said once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.prepare import prepare
from tasks.workspace import model_checks, paths, said_once
from tasks.workspace.model_checks import model_fit
from tasks.workspace.preflight import checked_params, checked_settings
from tasks.workspace.stage_cli import settle_params
from velocitune_core.config import ConfigError, Params, parse_params
from velocitune_core.model.fits_data import Fit

PROJECT = Path(__file__).parents[3]
Tree = dict[str, Any]


@pytest.fixture
def params(workspace: Path, settings: Tree, tiny_inputs: Path) -> Params:
    """Of a workspace whose model is good."""
    for file in ("dvc.yaml", "inputs/corpus/dvc.yaml", "inputs/base/dvc.yaml", "comparison/dvc.yaml"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / file, file)
    Path("data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        Path(f"data/raw/{name}.jsonl").write_text('{"text": "a document"}\n')
    shutil.copytree(tiny_inputs / "model", "models/mine")
    settings["data"]["sequence_length"] = 16
    paths.PARAMS.write_text(yaml.safe_dump(settings))
    return parse_params(settings)


def at(params: Params, path: str) -> Params:
    return params.model_copy(update={"model": params.model.model_copy(update={"path": path})})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models/trained", "models/trained is made by the stage `train`"),
        ("./models/../models/trained/", "is made by the stage `train`"),
        ("models/trained/checkpoint", "is made by the stage `train`"),
        ("models/base/sibling", "models/base/sibling is made by the stage `base`"),
        ("runs/training-1a2b/model", "is made by runs of the pipeline"),
        ("models", "models contains models/"),
        ("prepared", "is made by the stage `prepare`"),
    ],
)
def test_the_pipeline_cannot_start_from_what_it_makes(params: Params, path: str, expected: str) -> None:
    shutil.copytree("models/mine", "models/trained")
    (problem,) = model_fit(at(params, path)).problems
    assert problem.startswith("model.path: ") and expected in problem
    assert problem.endswith("copy the model to another folder, such as models/mine, and name that")


def test_a_model_is_opened_once_in_each_state(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_model(path: str, *_: Any, **__: Any) -> Fit:
        opened.append(path)
        return Fit(warnings=["a head is left out"])

    monkeypatch.setattr(model_checks, "open_model", open_model)
    assert [model_fit(params) for _ in range(3)] == 3 * [Fit(warnings=["a head is left out"])]
    assert len(opened) == 1
    weights = Path("models/mine/model.safetensors")
    weights.write_bytes(weights.read_bytes())
    model_fit(params)
    assert len(opened) == 2, "the file is another"
    model_fit(params.model_copy(update={"data": params.data.model_copy(update={"document_mask": True})}))
    assert len(opened) == 3, "the settings are others"


def test_a_model_that_was_found_bad_is_opened_again(params: Params) -> None:
    config = Path("models/mine/config.json")
    good = config.read_text()
    config.write_text(json.dumps(json.loads(good) | {"vocab_size": 50}))
    for _ in range(2):
        assert [line.split(" has ")[1][:9] for line in model_fit(params).problems] == ["1 weights", "token ids"]
    config.write_text(good)
    assert model_fit(params) == Fit()


def edit(name: str, **changes: Any) -> None:
    file = Path("models/mine", name)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda: Path("models/mine/config.json").write_text("\ufeff{}"), "config.json is not JSON"),
        (lambda: Path("models/mine/config.json").write_text("[]"), "has no model_type"),
        (lambda: edit("config.json", num_hidden_layers=2.5), "num_hidden_layers"),
        (lambda: edit("config.json", dtype="floaty"), "floaty"),
        (lambda: edit("tokenizer_config.json", eos_token="</s>"), "eos_token is '</s>', which tokenizer.json does not"),
    ],
)
def test_a_mistake_in_a_configuration_is_one_line(
    params: Params, caplog: pytest.LogCaptureFixture, damage: Callable[[], object], expected: str
) -> None:
    damage()
    with caplog.at_level(logging.WARNING):
        [problem] = model_fit(params).problems
    assert expected in problem and "models/mine" in problem and not caplog.messages


def test_beside_a_configuration_that_cannot_be_read_a_bad_tokenizer_is_named(params: Params) -> None:
    Path("models/mine/config.json").write_text("[]")
    Path("models/mine/tokenizer.json").write_text("{}")
    config, tokenizer = model_fit(params).problems
    assert "config.json has no model_type" in config and "tokenizer.json is no tokenizer" in tokenizer


def test_a_tokenizer_of_another_model_is_refused(params: Params) -> None:
    """As many ids as the model has embeddings, in another order, beside the vocabulary that belongs to it."""
    file = Path("models/mine/tokenizer.json")
    tree = json.loads(file.read_text())
    right = tree["model"]["vocab"]
    Path("models/mine/vocab.json").write_text(json.dumps(right))
    assert model_fit(params) == Fit()
    numbers = [right["<|endoftext|>"], *reversed([number for number in right.values() if number])]
    tree["model"]["vocab"] = dict(zip(right, numbers, strict=True))
    file.write_text(json.dumps(tree))
    [problem] = model_fit(params).problems
    assert "tokenizer.json and vocab.json are not of one tokenizer" in problem and "62 of 64 tokens" in problem


def test_new_checks_are_made_of_a_model_that_older_ones_found_good(
    params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    opened = []
    monkeypatch.setattr(model_checks, "open_model", lambda *_, **__: opened.append(1) or Fit())
    model_fit(params)
    checks = shutil.copytree(model_checks._CHECKS, tmp_path_factory.mktemp("code") / "model")
    monkeypatch.setattr(model_checks, "_CHECKS", checks)
    model_fit(params)
    assert len(opened) == 1
    with (checks / "finite.py").open("a") as file:
        file.write("# stricter\n")
    model_fit(params)
    assert len(opened) == 2


def test_one_mistake_is_one_line(params: Params) -> None:
    """A clone without git-lfs: no file is what it seems, and each check would say so in its own way."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        Path("models/mine", name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConfigError) as refused:
        checked_params()
    (_, line) = str(refused.value).splitlines()
    assert "config.json, model.safetensors, tokenizer.json are git-LFS pointers" in line


def test_a_warning_is_given_once_in_a_process(
    params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipeline checks before every stage."""
    tree = yaml.safe_load(paths.PARAMS.read_text())
    tree["data"]["sequence_length"] = 32
    paths.PARAMS.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(said_once, "_said", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            checked_params()
    assert [each.split(":")[0] for each in caplog.messages] == ["data.sequence_length"]


@pytest.mark.parametrize(
    "command", [lambda: settle_params({}, comparing=False), prepare.fn], ids=["pipeline", "prepare"]
)
def test_a_bad_model_is_refused_before_any_text_is_read(
    params: Params, monkeypatch: pytest.MonkeyPatch, command: Callable[[], object]
) -> None:
    monkeypatch.setattr("flows.prepare.read_all", lambda _: pytest.fail("text was read"))
    edit("config.json", vocab_size=50)
    with pytest.raises(ConfigError, match=r"weights of another size than its config\.json says"):
        command()


def test_a_pipeline_warns_of_sources_and_of_few_updates_before_any_work(
    params: Params, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("elsewhere").mkdir()
    shutil.move("data/raw/law.jsonl", "elsewhere/law.jsonl")
    Path("data/raw/law").mkdir()
    Path("data/raw/law/linked").symlink_to("../../../elsewhere")
    Path("data/raw/law/notes.csv").touch()
    monkeypatch.setattr(said_once, "_said", set())
    twelve_steps = {"training.token_budget": 16 * 16 * 12, "domains.law.source.path": "law"}
    with caplog.at_level(logging.WARNING):
        settle_params(twelve_steps, comparing=False)
    left_out, unwatched, updates = caplog.messages
    assert left_out.startswith("domains.law: of its source, 1 file or part is not read: data/raw/law/notes.csv")
    assert unwatched.startswith("domains.law: files outside data.path")
    assert "2 updates of the domain weights in 12 steps" in updates
    caplog.clear()
    said_once._said.clear()
    for work in ("read_all", "pack_all"):
        monkeypatch.setattr(f"flows.prepare.{work}", lambda _: None)
    with caplog.at_level(logging.WARNING):
        prepare.fn()  # as under `dvc repro`
    assert caplog.messages == [left_out, unwatched]


def test_settings_that_are_refused_are_taken_back_and_nothing_is_said_to_continue(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    before = paths.PARAMS.read_bytes()
    name = next(iter(params.domains))
    with pytest.raises(ConfigError, match=r"absent\.jsonl"):
        settle_params({f"domains.{name}.source.path": "absent.jsonl"}, comparing=False)
    assert paths.PARAMS.read_bytes() == before and not paths.OWN_SETTINGS.exists()
    assert capsys.readouterr().err == "params.yaml: the settings of this run are taken back, as they are refused\n"


def test_a_plan_refuses_what_the_pipeline_would_refuse_before_any_work(params: Params) -> None:
    """All in one message: what needs neither weights, which may be missing for a plan, nor rows."""
    config = json.loads(Path("models/mine/config.json").read_text())
    Path("models/mine/config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    Path("models/mine/model.safetensors").unlink()
    name = next(iter(params.domains))
    with pytest.raises(ConfigError) as refused:
        checked_settings({f"domains.{name}.source": {"type": "datasets", "path": "webb"}}, inputs=True)
    _, *problems = str(refused.value).splitlines()
    assert len(problems) == 2 and "has 10 embeddings" in problems[0] and "'webb' is not a hub id" in problems[1]
    with pytest.raises(ConfigError, match=r"model\.path: 'models/absent' is not a folder") as refused:
        checked_settings({"model.path": "models/absent", f"domains.{name}.source.path": "absent.jsonl"}, inputs=True)
    assert len(str(refused.value).splitlines()) == 3
    checked_settings({"model.path": "team/of-the-hub"}, inputs=True)


def test_a_sibling_with_another_tokenizer_is_refused_before_any_run(params: Params) -> None:
    shutil.copytree("models/mine", "models/small")
    planned = {"strategy.name": "planned", "strategy.options": {}, "mixture.swarm.model": "models/small"}
    checked_settings(planned)
    tokenizer = json.loads(Path("models/small/tokenizer.json").read_text())
    Path("models/small/tokenizer.json").write_text(json.dumps(tokenizer))  # other bytes, the same ids
    checked_settings(planned)
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    Path("models/small/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"mixture\.swarm\.model: the tokenizer of models/small is not that of"):
        checked_settings(planned)
