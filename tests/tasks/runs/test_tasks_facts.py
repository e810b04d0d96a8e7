"""Facts of the main run: from its events, its settings, git, and the packed data."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import result_samples as samples
import torch
from event_samples import started, stepped
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks.runs.facts import STEPS_AT_MOST, run_facts, settings_of
from tasks.workspace import paths
from velocitune_core.config import Params, parse_params
from velocitune_core.train.events import Event, Finished, Stepped
from velocitune_core.train.hardware import described
from velocitune_core.train.job import KEY_LENGTH

DOMAIN = {"code": samples.SEVEN["code"]}


@pytest.fixture
def params(workspace: Path) -> Params:
    tree = {
        "data": {"path": "data/raw"},
        "model": {"path": "models/mine"},
        "domains": {"code": {"source": {"type": "jsonl", "path": "x.jsonl"}}},
        "training": {"seed": 11, "optimizer": {"learning_rate": 1e-3}},
        "tracking": {"uri": "http://me:secret@host"},
    }
    return parse_params(tree)


def log(*events: Event) -> None:
    paths.EVENTS.parent.mkdir(parents=True, exist_ok=True)
    paths.EVENTS.write_text("".join(each.model_dump_json() + "\n" for each in events), encoding="utf-8")


def step(number: int) -> Stepped:
    return stepped(number, tokens=10 * number, loss=5.0)


def test_events_say_when_where_and_step_by_step(params: Params) -> None:
    last = 3 * STEPS_AT_MOST + 1
    start = started(time=100.0, hardware="AMD EPYC, 2 cores", world_size=2)
    log(start, *(step(number) for number in range(1, last + 1)), Finished(time=160.0, seconds=60.0))
    facts = run_facts(params, samples.manifest(DOMAIN))
    assert (facts.started, facts.finished, facts.hardware) == (100.0, 160.0, "2 processes on AMD EPYC, 2 cores")
    assert len(facts.steps) <= STEPS_AT_MOST and facts.steps[-1].tokens == 10 * last
    assert (facts.model, facts.seed) == ("models/mine", 11)
    assert "seed: 11" in facts.changed_settings and "secret" not in facts.changed_settings
    assert "bootstrap" not in facts.changed_settings  # as by default
    assert described(torch.device("cpu")).endswith(("core", "cores"))


def test_settings_are_those_that_the_run_was_made_under(params: Params) -> None:
    then = settings_of(params)
    now = params.model_copy(update={"training": params.training.model_copy(update={"seed": 12})})
    facts = run_facts(now, samples.manifest(DOMAIN), settings=then)
    assert "seed: 11" in facts.changed_settings and "secret" not in str(then)
    assert "seed: 12" in run_facts(now, samples.manifest(DOMAIN)).changed_settings  # of an older version


def test_without_events_or_with_old_ones_the_rest_is_known(params: Params) -> None:
    assert run_facts(params, samples.manifest(DOMAIN)).started is None
    log(started())
    paths.EVENTS.write_text('{"event": "of an older version"}\n', encoding="utf-8")
    facts = run_facts(params, samples.manifest(DOMAIN))
    assert (facts.started, facts.steps, facts.hardware, facts.model) == (None, [], "", "models/mine")


def test_the_seed_is_that_of_the_run_that_is_reported(params: Params) -> None:
    recipe = "0123456789ab" * 5
    job = paths.RUNS / f"velocitune-seed-3-{recipe[:KEY_LENGTH]}" / "job.json"
    assert run_facts(params, samples.manifest(DOMAIN), recipe).seed == 11  # its folder is not here
    job.parent.mkdir(parents=True)
    job.write_text('{"training": {"seed": 3}}', encoding="utf-8")
    assert run_facts(params, samples.manifest(DOMAIN), recipe).seed == 3
    assert run_facts(params, samples.manifest(DOMAIN)).seed == 11  # of an older version, which names no recipe


def test_the_commit_says_whose_it_is_and_whether_the_code_was_changed(params: Params) -> None:
    assert run_facts(params, samples.manifest(DOMAIN)).commit == ""  # no repository
    code = Path("tasks/a.py")
    code.parent.mkdir()
    for file in (code, paths.PARAMS):
        file.write_text("a", encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for command in (["init", "-q"], ["add", str(code), str(paths.PARAMS)], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    late = f"{head[:12]} when the report was made"
    assert run_facts(params, samples.manifest(DOMAIN)).commit == late  # and when the run was is not known
    log(started(), Finished(time=time.time() - 3600, seconds=60.0))
    assert run_facts(params, samples.manifest(DOMAIN)).commit == late
    log(started(), Finished(time=time.time(), seconds=60.0))
    then = settings_of(params)
    log(started(), Finished(time=time.time() - 3600, seconds=60.0))
    assert run_facts(params, samples.manifest(DOMAIN), settings=then).commit == head[:12]  # in a later report
    log(started(), Finished(time=time.time(), seconds=60.0))
    paths.PARAMS.write_text("b", encoding="utf-8")  # as stages do
    assert run_facts(params, samples.manifest(DOMAIN)).commit == head[:12]
    code.write_text("b", encoding="utf-8")
    assert run_facts(params, samples.manifest(DOMAIN)).commit == f"{head[:12]}, with changes to the code"


def test_bytes_per_token_are_those_of_held_out_text(params: Params) -> None:
    manifest = samples.manifest(DOMAIN)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: number for number, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    paths.TRAINED_MODEL.mkdir(parents=True)
    tokenizer.save(str(paths.TRAINED_MODEL / "tokenizer.json"))
    assert run_facts(params, manifest).bytes_per_token == {}  # the rows are not here
    end = tokenizer.token_to_id("<end>")
    rows = [[*tokenizer.encode("né la").ids, end, end], [*tokenizer.encode("abcdef").ids, end, end]]
    packed = paths.PREPARED / manifest.domains["code"].held_out.file
    packed.parent.mkdir(parents=True)
    np.save(packed, np.array(rows, dtype=np.uint16))
    assert run_facts(params, manifest).bytes_per_token == {"code": 12 / 16}
