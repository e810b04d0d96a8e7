"""Plans of workspaces that are empty, prepared, or hold finished runs."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planned_samples
import psutil
import pyarrow
import pytest
import shapes
import yaml
import zstandard
from pyarrow import parquet
from rich.console import Console
from tiny import write_inputs

from tasks.planning.announce import announce_length
from tasks.planning.build import make_plan
from tasks.planning.inputs import read_inputs
from tasks.planning.length import length_notices
from tasks.planning.probe_launch import what_fits
from tasks.planning.source_sizes import text_bytes
from tasks.planning.view import as_json, print_plan, size_text
from tasks.runs.jobs import compared_job, proxy_jobs
from tasks.runs.own_targets import finished_own_targets, own_proxy_jobs
from tasks.runs.planned import plan_inputs
from tasks.runs.run_folder import record_start, run_folder
from tasks.runs.steering import planned_job
from tasks.runs.swarm import swarm_jobs
from tasks.workspace import paths, said_once
from tasks.workspace.planned_settings import compared_mixture
from tasks.workspace.updates import warn_of_few_updates
from velocitune_core.config import ConfigError, Params, Source, parse_params
from velocitune_core.contracts import DomainTarget, LossPoint, Manifest, SwarmRound, Timings, TrainResult
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.model.folder import ModelError
from velocitune_core.model.io import model_digest
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.plan.cost import Run, Stage, with_layers
from velocitune_core.plan.memory import Setting
from velocitune_core.train.job import TrainJob

SEVEN_BILLION = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


def write_config(folder: str, config: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True)
    (Path(folder) / "config.json").write_text(json.dumps(config))


def plan_of(tree: dict[str, Any], **options: Any) -> Any:
    return make_plan(parse_params(tree), **{"probe": False, **options})


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.usefixtures("workspace")
def test_cost_needs_only_the_configuration_of_a_model(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"] |= {"token_budget": 64_000}
    settings["execution"] |= {"micro_batch_sequences": 1}
    before = files()
    plan = plan_of(settings, device_bytes=80 * 10**9)
    assert plan.shape.parameters == 6_738_415_616 and not plan.shape.tied
    assert [stage.name for stage in plan.stages] == ["initial", "proxies", "train"]
    # 64,000 / 64 / 16 = 62 steps; the proxies do round(0.2·62), round(0.4·62), round(0.8·62)
    assert [price.steps for price in plan.prices] == [0, 12 + 25 + 50, 62]
    assert plan.total.seconds is None and plan.total.tokens == (87 + 62) * 16 * 64
    (footprint,) = plan.footprints
    assert not footprint.fit.fits and footprint.fit.remedies
    assert json.loads(as_json(plan))["footprints"][0]["memory"]["peak"] == footprint.memory.peak
    assert files() == before


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("compile_", "size", "said"),
    [("auto", 10**10, "on a GPU"), ("auto", None, "on a CPU"), ("always", None, "on a CPU"), ("never", 10**10, None)],
)
def test_a_plan_says_how_far_compiled_runs_are_from_its_memory(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, compile_: str, size: int | None, said: str | None
) -> None:
    monkeypatch.setattr("tasks.planning.build.gpu_count", lambda: 0)
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000
    settings["execution"]["compile"] = compile_
    lines = [line for line in plan_of(settings, device_bytes=size).assumptions if "uncompiled" in line]
    assert len(lines) == (said is not None) and all(str(said) in line for line in lines)


@pytest.mark.usefixtures("workspace")
def test_evaluations_are_those_of_the_training_loop(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000  # 62 steps, evaluated every 5 and at the end
    train = plan_of(settings).stages[-1].runs[0]
    assert (train.evaluations, train.evaluated_sequences) == (13, 2 * 16)
    assert (train.checkpoints, train.checkpoints_kept) == (1, 1)


@pytest.mark.usefixtures("workspace")
def test_a_domain_of_unknown_size_is_refused_with_what_to_do(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    with pytest.raises(ConfigError, match=r"domains.code: its size is unknown.*\n.*domains.law: its size is unknown"):
        plan_of(settings)


@pytest.mark.usefixtures("workspace")
def test_sizes_are_estimated_from_files(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["domains"]["law"]["max_tokens"] = 5_000
    folder = Path("data/raw")
    folder.mkdir(parents=True)
    (folder / "code.jsonl").write_bytes(b"x" * 400_000)
    inputs = read_inputs(parse_params(settings))
    tokens = {name: domain.train.tokens for name, domain in inputs.manifest.domains.items()}
    assert tokens == {"code": 90_000 // 64 * 64, "law": 5_000 // 64 * 64}  # a tenth is held out
    assert any("max_tokens" in line for line in inputs.assumptions)


@pytest.mark.usefixtures("workspace")
def test_a_model_without_configuration_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"cannot read config.json of models/mine"):
        plan_of(settings)
    settings["model"]["path"] = "/no/such/mygpt"
    with pytest.raises(ModelError, match=r"^model\.path: there is no folder /no/such/mygpt; "):
        read_inputs(parse_params(settings))


@pytest.mark.usefixtures("workspace")
def test_proxies_have_processes_of_their_own(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"] |= {"token_budget": 64_000, "precision": "bfloat16"}
    settings["resources"] = {"processes": 8}
    plan = plan_of(settings, device_bytes=80 * 10**9)
    train, proxies = plan.footprints
    assert train.fit.fits and train.memory.parameters * 8 == proxies.memory.parameters
    print_plan(plan)
    printed = capsys.readouterr().out
    assert not proxies.fit.fits and "proxies.processes: 2" in printed
    assert "documents: start none, end none, attention across documents" in printed  # there is no tokenizer yet
    settings["proxies"]["processes"] = 8
    (both,) = plan_of(settings, device_bytes=80 * 10**9).footprints
    assert both.fit.fits and both.memory == train.memory


@pytest.mark.usefixtures("workspace")
def test_what_no_time_is_estimated_for_is_said_and_of_own_text_no_stage_that_it_has_not(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000

    def said(path: str) -> str:
        plan = plan_of(settings | {"data": {"path": path}})
        print_plan(replace(plan, total=replace(plan.total, seconds=100.0)))
        return " ".join(capsys.readouterr().out.split())

    rest = (
        "reading and packing the text (prepare), fitting the laws of the targets, writing the report and starting "
        "Prefect and MLflow"
    )
    assert f"the times leave out {rest}" in said("data/raw")
    assert f"the times leave out making the embedded text (stage corpus), {rest}" in said("data/embedded")
    print_plan(plan_of(settings))  # without times
    assert "the times leave out" not in capsys.readouterr().out


@pytest.mark.usefixtures("workspace")
def test_a_search_and_its_reference_are_counted(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000
    settings["strategy"] = {"name": "doremi", "options": {}}
    found = {stage.name: stage.runs for stage in plan_of(settings).stages[-2:]}
    assert {name: [(run.name, run.steps, run.reference) for run in runs] for name, runs in found.items()} == {
        "weights": [("training-reference", 62, False), ("training-search", 62, True)],
        "train": [("training", 62, False)],
    }
    settings["strategy"] = {"name": "recommended", "options": {}, "search": 0.5}
    assert [[run.steps for run in stage.runs] for stage in plan_of(settings).stages[-2:]] == [[31], [62]]


@pytest.mark.usefixtures("workspace")
def test_a_swarm_is_counted_without_the_static_run_that_is_a_proxy(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    write_config("models/small", SEVEN_BILLION | {"num_hidden_layers": 2})
    settings["training"]["token_budget"] = 64_000
    settings["strategy"] = {"name": "planned", "options": {}}
    plan = plan_of(settings)
    stages = {stage.name: (stage.runs, price) for stage, price in zip(plan.stages, plan.prices, strict=True)}
    runs, own = stages["weights"]
    assert [run.steps for run in runs] == [12] * 9  # 2(2 + 3) runs of a fifth of 62 steps
    assert [run.steps for run in stages["train"][0]] == [62]
    settings["mixture"]["swarm"] = {"rounds": {"first": 6}}
    rounds = plan_of(settings)
    by_name = {stage.name: price for stage, price in zip(rounds.stages, rounds.prices, strict=True)}
    assert by_name["weights"].flops == pytest.approx(own.flops * 5 / 9)
    assert by_name["weights, at most"].flops == pytest.approx(own.flops * 4 / 9)
    assert rounds.total.flops == pytest.approx(plan.total.flops)  # at most
    least = rounds.total.flops - by_name["weights, at most"].flops
    assert any(f"with its first round alone, {least:.2e} FLOPs" in each for each in rounds.assumptions)
    settings["mixture"]["swarm"] = {"model": "models/small"}  # which no proxy trains
    small = plan_of(settings)
    (price,) = [price for stage, price in zip(small.stages, small.prices, strict=True) if stage.name == "weights"]
    assert price.flops / 10 / (own.flops / 9) == pytest.approx(0.099, abs=0.001)  # 2 of 32 layers, embedding and head
    settings["model"]["path"] = "models/base"
    shape = {"hidden_size": 48, "intermediate_size": 128, "layers": 2, "heads": 3}
    settings["base"] = {
        "vocabulary_size": 1024,
        **shape | {"hidden_size": 96, "intermediate_size": 256, "layers": 4},
        "sibling": shape,
        "training": settings["training"],
    }
    settings["mixture"]["swarm"] = {"model": "models/base/sibling"}
    embedded = {stage.name: stage.runs for stage in plan_of(settings).stages}
    assert [run.work for run in embedded["base"]] == [1.0, pytest.approx(0.19, abs=0.02)]  # a fifth
    assert {run.work for run in embedded["weights"]} == {embedded["base"][1].work}
    settings["compare"] = {"runs": {"static": {"strategy": "static"}, "planned": {"strategy": "planned"}}}
    compared = plan_of(settings, compare=True).stages[-1].runs
    assert [run.name for run in compared].count("planned-seed-1") == 1 and len(compared) == 10 + 2 * 3


@pytest.mark.usefixtures("workspace")
def test_finished_runs_of_the_pipeline_are_marked(settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that a comparison has trained: the same recipe under another name."""
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    settings["compare"] = {"seeds": [1], "runs": {"static": {"strategy": "static"}}}
    settings["strategy"] = {"name": "static"}
    params = parse_params(settings)

    def finished() -> dict[str, int]:
        return {stage.name: stage.finished for stage in plan_of(settings).stages}

    assert finished() == {"initial": 0, "proxies": 0, "train": 0}
    inputs, digest = read_inputs(params), model_digest(Path("made/model"))
    finish(proxy_jobs(params, inputs.manifest, digest)[0])
    finish(compared_job(params, inputs.manifest, inputs.initial, inputs.targets, "static", 1, digest))
    assert finished() == {"initial": 0, "proxies": 1, "train": 1}
    print_plan(plan_of(settings))
    assert "1 done of 3" in (printed := capsys.readouterr().out) and "1 done of 1" in printed
    settings["training"]["seed"] = 2
    assert finished() == {"initial": 0, "proxies": 1, "train": 0}


@pytest.mark.usefixtures("workspace")
def test_finished_runs_of_a_comparison_are_not_counted(settings: dict[str, Any]) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    settings["compare"] = {
        "seeds": [1, 2],
        "runs": {
            "static": {"strategy": "static"},
            "doremi": {"strategy": "doremi"},
            "velocitune": {"strategy": "velocitune"},
            "held": {"strategy": "static", "weights_of": "velocitune"},
        },
    }
    params = parse_params(settings)
    everything = plan_of(settings, compare=True)
    names = {run.name for run in everything.stages[-1].runs}
    expected = {f"{label}-seed-{seed}" for label in settings["compare"]["runs"] for seed in (1, 2)}
    assert names == expected | {"doremi-seed-1-search", "doremi-seed-2-search"}
    inputs = read_inputs(params)
    digest = model_digest(Path("made/model"))
    for label in ("static", "velocitune"):
        job = compared_job(params, inputs.manifest, inputs.initial, inputs.targets, label, 1, digest)
        finish(job)
    less = plan_of(settings, compare=True)
    gone = {"static-seed-1", "velocitune-seed-1", "held-seed-1"}  # which holds the weights of a static run here
    assert less.finished == 3
    assert names - {run.name for run in less.stages[-1].runs} == gone


@pytest.mark.usefixtures("workspace")
def test_a_finished_plan_is_priced_as_finished_and_a_plan_of_other_runs_is_not(settings: dict[str, Any]) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    swarm: dict[str, Any] = {"fractions": [0.3], "rounds": {"first": 4, "runs": 2}}
    runs = {"static": {"strategy": "static"}, "plan": {"strategy": "planned", "options": {"swarm": swarm}}}
    settings["compare"] = {"seeds": [1], "runs": runs}

    def missing() -> set[str]:
        return {run.name for run in plan_of(settings, compare=True).stages[-1].runs}

    named = {f"swarm-0_3-seed-1-{number:02d}" for number in range(10)}
    assert missing() == named | {"static-seed-1", "plan-seed-1"}
    params = parse_params(settings)
    inputs = read_inputs(params)
    jobs = swarm_jobs(params, inputs.manifest, compared_mixture(params, "plan", 1))
    found = planned_samples.planned(dict.fromkeys(settings["domains"], 0.5))
    assert found.planned is not None
    pairs = zip(found.planned.runs, jobs, strict=False)
    made = [run.model_copy(update={"folder": job.folder_name}) for run, job in pairs]
    numbers = dict.fromkeys(("share", "predicted", "regret", "spread", "tolerance", "expected"), 0.1)
    rounds = [SwarmRound(runs=4, settled=True, further=0, **numbers)]
    planned = found.planned.model_copy(update={"runs": made, "rounds": rounds})
    mixture = compared_mixture(params, "plan", 1)
    decided = plan_inputs(params, mixture, jobs, inputs.manifest, inputs.initial, inputs.targets)
    found = found.model_copy(update={"planned": planned, "inputs": decided})
    found.write(paths.COMPARISON_REPORT / paths.PLANS / "plan.json")
    job = compared_job(params, inputs.manifest, inputs.initial, inputs.targets, "plan", 1)
    for each in (*jobs, planned_job(job, found, {}, inputs.initial)):
        finish(each)
    assert missing() == {"static-seed-1"}
    wanted: dict[str, Any] = runs["plan"]["options"]
    for changed in (
        {"swarm": swarm | {"min_share": 0.1}},
        {"swarm": swarm | {"law": "bimix"}},
        {"swarm": swarm | {"bootstrap": 50}},
        {"swarm": swarm | {"rounds": {"first": 4, "runs": 2, "tolerance": 0.1}}},
        {"objective": {"average": "by_size"}},
        {"objective": {"worse_than_static": 0.1}},
        {"objective": {"largest_share": 0.9}},
    ):
        runs["plan"]["options"] = wanted | changed
        assert "plan-seed-1" in missing(), changed
    runs["plan"]["options"] = wanted
    settings["mixture"]["initial_domain_weights"] = {"code": 0.4, "law": 0.6}
    assert "plan-seed-1" in missing()
    settings["mixture"]["initial_domain_weights"] = None
    inputs.targets.write(paths.TARGETS)
    assert missing() == {"static-seed-1"}
    others = {name: DomainTarget(target=0.9) for name in settings["domains"]}
    inputs.targets.model_copy(update={"domains": others}).write(paths.TARGETS)
    assert "plan-seed-1" in missing()


@pytest.mark.usefixtures("workspace")
def test_finished_runs_under_own_targets_are_not_counted(settings: dict[str, Any]) -> None:
    write_inputs(Path("made"))
    settings["model"]["path"] = "made/model"
    settings["training"]["token_budget"] = 64_000
    own = {"fractions": [0.4, 0.6, 0.8], "law": "chinchilla"}  # two of them are proxies of the pipeline
    runs = {"static": {"strategy": "static"}, "own": {"strategy": "velocitune", "targets": own}}
    settings["compare"] = {"seeds": [1], "runs": runs | {"held": {"strategy": "static", "weights_of": "own"}}}
    params = parse_params(settings)
    inputs = read_inputs(params)

    def missing() -> set[str]:
        return {run.name for run in plan_of(settings, compare=True).stages[-1].runs}

    everything = {"static-seed-1", "own-seed-1", "held-seed-1", "proxy-0_6-seed-1"}
    assert missing() == everything
    alone = own_proxy_jobs(params, "own", inputs.manifest)
    for job in (*alone, *(job for job in proxy_jobs(params, inputs.manifest) if job.fraction > 0.2)):
        reached = dict.fromkeys(settings["domains"], 1 + 4 * job.total_steps**-0.5)
        finish(job, points=[LossPoint(step=job.total_steps, tokens=job.total_steps * 1024, losses=reached)])
    assert missing() == everything - {"proxy-0_6-seed-1"}
    fitted = finished_own_targets(params, "own", inputs.manifest, inputs.initial)
    assert fitted is not None
    finish(compared_job(params, inputs.manifest, inputs.initial, fitted.targets, "own", 1))
    assert missing() == {"static-seed-1", "held-seed-1"}


def finish(job: TrainJob, points: Sequence[LossPoint] = ()) -> None:
    """Write the files of a finished run that a comparison reads."""
    result = TrainResult(
        name=job.name,
        strategy=job.strategy.name,
        precision="float32",
        steps=job.total_steps,
        tokens=1,
        parameters=1,
        final={},
        points=list(points),
        domain_weights=[],
        mean_domain_weights=job.initial_domain_weights,
        tokens_per_domain={},
        epochs_per_domain={},
        tokens_per_second=1.0,
        seconds=Timings(),
    )
    record_start(run_folder(job), job)
    result.write(run_folder(job) / "result.json")
    (run_folder(job) / "model").mkdir()
    (run_folder(job) / "model/config.json").write_text("{}")


@pytest.mark.usefixtures("workspace")
def test_a_prepared_manifest_is_used_unless_the_settings_differ(settings: dict[str, Any]) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000
    made = read_inputs(parse_params(settings)).manifest
    larger = made.domains["code"].train.model_copy(update={"sequences": 7_777})
    domains = made.domains | {"code": made.domains["code"].model_copy(update={"train": larger})}
    made.model_copy(update={"domains": domains}).write(paths.MANIFEST)
    assert read_inputs(parse_params(settings)).manifest == Manifest.read(paths.MANIFEST)


@pytest.fixture
def packed(settings: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """Settings whose manifest says that 100 sequences of `code` and of `law` are packed, from a file each."""
    write_inputs(workspace / "made")
    settings["model"]["path"] = "made/model"
    (workspace / "data/raw").mkdir(parents=True)
    for name in settings["domains"]:
        (workspace / f"data/raw/{name}.jsonl").write_bytes(b"x" * 25_600)
    params = parse_params(settings)
    made = read_inputs(params).manifest
    train = made.domains["code"].train.model_copy(update={"sequences": 100, "tokens": 6_400})
    domains = {name: domain.model_copy(update={"train": train}) for name, domain in made.domains.items()}
    digest = tokenizer_digest(load_tokenizer("made/model"))
    made.model_copy(update={"domains": domains, "tokenizer_sha256": digest}).write(paths.MANIFEST)
    assert read_inputs(params).manifest.domains == domains
    return settings


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("data", {"sequence_length": 128}),
        ("data", {"path": "data"}),
        ("data", {"min_characters": 2}),
        ("data", {"held_out_fraction": 0.2}),
        ("code", {"max_tokens": 640}),
        ("code", {"source": {"type": "jsonl", "path": "nowhere.jsonl"}}),
        ("code", {"source": {"type": "text", "path": "code.jsonl"}}),
        ("domains", {"more": {"source": {"type": "jsonl", "path": "code.jsonl"}}}),
        ("domains", {"more": {"source": {"type": "jsonl", "path": "code.jsonl"}, "measure_only": True}}),
    ],
)
def test_a_manifest_of_other_settings_is_not_used(packed: dict[str, Any], section: str, change: dict[str, Any]) -> None:
    (packed["domains"][section] if section == "code" else packed[section]).update(change)
    packed["training"]["token_budget"] = 64_000
    inputs = read_inputs(parse_params(packed))
    assert all(domain.train.sequences != 100 for domain in inputs.manifest.domains.values())
    assert inputs.assumptions[0].startswith("prepared/manifest.json") and "is not used" in inputs.assumptions[0]


def test_a_manifest_of_an_earlier_version_is_said_to_be_one(packed: dict[str, Any]) -> None:
    manifest = json.loads(paths.MANIFEST.read_text())
    for domain in manifest["domains"].values():
        domain.pop("settings_sha256")
    paths.MANIFEST.write_text(json.dumps(manifest))
    assert (
        "by an earlier version (the stage prepare makes it again)" in read_inputs(parse_params(packed)).assumptions[0]
    )


def test_a_manifest_of_other_files_or_another_tokenizer_is_not_used(packed: dict[str, Any]) -> None:
    params = parse_params(packed)
    Path("data/raw/law.jsonl").touch()  # a copy of the data has other times
    assert read_inputs(params).manifest.domains["law"].train.sequences == 100
    with Path("data/raw/law.jsonl").open("ab") as file:
        file.write(b"more")
    assert "or with another tokenizer, for law, and is not used" in read_inputs(params).assumptions[0]
    tokenizer = Path("made/model/tokenizer.json")
    tokenizer.write_text(tokenizer.read_text().replace("word3", "word-3"))
    assert "or with another tokenizer, for code and law, and is not used" in read_inputs(params).assumptions[0]


def test_a_warning_of_few_updates_is_of_these_settings(
    packed: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 sequences in batches of 16 are 12 steps, with an evaluation every 5."""
    monkeypatch.setattr(said_once, "_said", set())
    warn_of_few_updates(parse_params({**packed, "data": {**packed["data"], "min_characters": 2}}))
    assert not caplog.messages
    warn_of_few_updates(parse_params(packed))
    assert len(caplog.messages) == 1 and "in 12 steps" in caplog.messages[0]


@pytest.mark.usefixtures("workspace")
def test_a_run_that_exceeds_memory_is_not_probed(settings: dict[str, Any]) -> None:
    write_config("models/mine", {**SEVEN_BILLION, "intermediate_size": 11_008_000})
    settings["training"]["token_budget"] = 64_000
    plan = plan_of(settings, probe=True)
    assert plan.probes == {} and plan.total.seconds is None
    assert any("GB are free here" in each for each in plan.assumptions)


def test_few_layers_are_run_of_a_model_that_this_machine_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(4096, 64, 8, 4)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=120 * 10**9))
    few, smallest = what_fits(shapes.SEVEN_BILLION, setting, copies=1)
    assert few == with_layers(shapes.SEVEN_BILLION, 2)
    assert (smallest.micro_batch_sequences, smallest.batch_sequences, smallest.evaluation_sequences) == (1, 2, 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    assert what_fits(shapes.SEVEN_BILLION, setting, copies=1) == (shapes.SEVEN_BILLION, setting)


def test_jobs_from_a_stand_in_equal_those_from_a_manifest(settings: dict[str, Any], workspace: Path) -> None:
    """The plan makes its proxies by the stage's own code, without the hash of the parameters."""
    write_inputs(workspace / "made")
    settings |= {"model": {"path": "made/model"}}
    settings["training"]["token_budget"] = 64_000
    params: Params = parse_params(yaml.safe_load(yaml.safe_dump(settings)))
    manifest = read_inputs(params).manifest
    hashed, unhashed = proxy_jobs(params, manifest), proxy_jobs(params, manifest, "")
    assert [job.model_copy(update={"model_sha256": ""}) for job in hashed] == unhashed


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1_500_000, "1.5 MB"), (80e9, "80.0 GB"), (5e15, "5,000.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.usefixtures("workspace")
def test_compressed_files_and_parquet_are_sized(settings: dict[str, Any]) -> None:
    rows = [json.dumps({"text": f"{number} " * 50}) for number in range(2_000)]
    plain = "\n".join(rows).encode()
    folder = Path("data/raw")
    folder.mkdir(parents=True)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(plain))
    column = [f"{number} " * 50 for number in range(2_000)]
    parquet.write_table(pyarrow.table({"text": column, "other": ["x" * 500] * 2_000}), folder / "c.parquet")
    (folder / "texts").mkdir()
    (folder / "texts/one.rst").write_bytes(plain)

    def size(kind: str, path: str) -> int:
        return text_bytes(Source.model_validate({"type": kind, "path": path}), folder)

    assert size("jsonl", "a.jsonl.gz") == size("jsonl", "b.jsonl.zst") == size("text", "texts") == len(plain)
    assert size("parquet", "c.parquet") == pytest.approx(sum(map(len, column)), rel=0.1)
    (folder / "a.jsonl.gz").write_bytes(b"no gzip")
    assert size("jsonl", "a.jsonl.gz") == 0 == size("jsonl", "missing.jsonl")


@pytest.mark.usefixtures("workspace")
def test_the_length_of_the_work_is_logged_before_it(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    announce_length(parse_params(settings), ["train"])  # there is no model
    assert not caplog.messages
    write_config("models/mine", SEVEN_BILLION)
    settings["domains"]["code"]["max_tokens"] = settings["domains"]["law"]["max_tokens"] = 3_000_000
    run = Run("run", 1, 1, 1, evaluations=0, evaluated_sequences=0)
    monkeypatch.setattr("tasks.planning.announce.make_plan", lambda *_, probe=True, **__: plan(probe))

    def plan(probe: bool) -> Any:
        price = SimpleNamespace(tokens=14_000_000, seconds=7200.0 if probe else None)
        stages = [Stage("proxies", (run, run), finished=1), Stage("train", (run,))]
        return SimpleNamespace(stages=stages, prices=[price, price])

    announce_length(parse_params(settings), ["report"])
    assert not caplog.messages
    announce_length(parse_params(settings), ["proxies", "targets", "train", "report"])
    assert caplog.messages == [
        "training.token_budget is null: the main run takes one epoch of all text, 6 M tokens, and the proxies 1.4 "
        "times that",
        "about 3.0 h for 21 M tokens still to train, timed on this machine; `python -m flows.plan` has the stages",
    ]


@pytest.mark.usefixtures("workspace")
def test_text_packed_in_vain_and_a_base_that_repeats_its_text_are_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.planning.inputs._source_tokens", lambda *_: 64_000)  # in each file
    settings["domains"]["code"]["max_tokens"] = settings["domains"]["law"]["max_tokens"] = 64_000
    settings["training"]["token_budget"] = 16_000
    settings["model"]["path"] = "models/base"
    settings["base"] = {"vocabulary_size": 300, "training": {**settings["training"], "token_budget": 1_280_000}}
    few, repeated = length_notices(parse_params(settings), read_inputs(parse_params(settings)).manifest)
    assert few.startswith("training.token_budget 16 k is 12% of the 128 k tokens that are packed")
    assert repeated.startswith("base.training.token_budget 1.28 M is 10 epochs of the text of base.domains; null takes")
    settings["training"]["token_budget"] = settings["base"]["training"]["token_budget"] = None
    (epoch,) = length_notices(parse_params(settings), read_inputs(parse_params(settings)).manifest)
    assert "one epoch of all text" in epoch


@pytest.mark.usefixtures("workspace")
def test_nothing_is_said_of_the_base_s_text_before_there_is_any() -> None:
    """The committed settings in a fresh clone: what limits the mixture is not the size of the base's text."""
    committed = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text(encoding="utf-8"))
    params = parse_params(committed)
    (epoch,) = length_notices(params, read_inputs(params).manifest)
    assert epoch.startswith("training.token_budget is null")


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("width", [70, 80, 100])
def test_a_plan_fits_the_terminal(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    write_config("models/mine", SEVEN_BILLION)
    settings["training"]["token_budget"] = 64_000_000_000
    settings["resources"] = {"processes": 8}
    monkeypatch.setattr("tasks.planning.view.console_of", lambda stream: Console(file=stream, width=width))
    monkeypatch.setattr(Console, "is_terminal", property(lambda _: True))
    print_plan(plan_of(settings, device_bytes=80 * 10**9))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width and all("…" not in line for line in lines)
    assert any(
        re.search(r"train\W+1\W.*62,500,000.* 44\.7%", line) for line in lines
    )  # no cell goes on in the next line
    assert any("updates of the domain weights in" in line for line in lines)
