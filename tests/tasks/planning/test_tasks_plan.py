"""Plans: what the work costs in time and memory, and how that is shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import shapes
import yaml
from plan_samples import SEVEN_BILLION, plan_of, write_config
from rich.console import Console
from tiny import write_inputs

from tasks.planning.announce import announce_length
from tasks.planning.inputs import read_inputs
from tasks.planning.length import length_notices
from tasks.planning.probe_launch import what_fits
from tasks.planning.view import as_json, print_plan
from velocitune_core.config import parse_params
from velocitune_core.model.folder import ModelError
from velocitune_core.plan.cost import Run, Stage, with_layers
from velocitune_core.plan.memory import Setting
from velocitune_core.plan.probe import Peak, Probe, ProbeResult


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


def test_a_plan_follows_what_its_probe_measured(
    settings: dict[str, Any], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(workspace / "made")
    settings["model"]["path"] = "made/model"
    settings["data"] |= {"sequence_length": 16, "document_mask": True}
    settings["training"]["token_budget"] = 2_560
    probes: list[Probe] = []

    def run(probe: Probe, folders: list[Path], processes: int) -> tuple[float, list[ProbeResult]]:
        probes.append(probe)
        peak = Peak(batch_sequences=16, micro_batch_sequences=16, evaluation_sequences=8, peak_bytes=700 * 10**6)
        times = {"ready": 1.0, "step": 0.1, "steps": 1, "evaluation": 0.1, "checkpoint": 0.1}
        flops = {"step_flops": 1e6, "evaluation_flops": 1e5}
        return 0.0, [ProbeResult(**times, libraries_bytes=5 * 10**8, peaks=[peak], tensor_bytes=10**8, **flops)]

    monkeypatch.setattr("tasks.planning.build.gpu_count", lambda: 0)
    monkeypatch.setattr("tasks.planning.probe_launch.gpu_count", lambda: 0)
    monkeypatch.setattr("tasks.planning.probe_launch._run", run)
    counted, probed = plan_of(settings), plan_of(settings, probe=True)
    assert probes[0].document_start == 0  # as in the run
    assert probed.prices[-1].training_flops == pytest.approx(1e6 * 2_560) != counted.prices[-1].training_flops
    (before,), (after,) = counted.footprints, probed.footprints
    assert after.memory.activations > 2 * before.memory.activations
    assert after.resident == pytest.approx(700 * 10**6)  # of the same setting


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
    assert any("evaluations take 13 % as many operations" in line for line in lines)
