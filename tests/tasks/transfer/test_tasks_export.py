"""What a folder of jobs holds, and how large it is."""

from __future__ import annotations

import logging
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journeys import RUNS, settings

from tasks.planning.inputs import read_model_config
from tasks.runs.planned import plan_inputs
from tasks.runs.price import shape_of
from tasks.runs.swarm import swarm_jobs
from tasks.stages.base import UNTRAINED
from tasks.transfer.collect import missing_runs
from tasks.transfer.export import Contents, check_can_leave, check_destination, folder_contents, write_folder
from tasks.transfer.steps import Graph, Known, steps_of
from tasks.workspace import paths
from tasks.workspace.planned_settings import mixture_of
from velocitune_core.config import ConfigError, Params, load_params
from velocitune_core.contracts import (
    Border,
    DocumentBorders,
    DomainManifest,
    InitialLosses,
    Manifest,
    Split,
    StartingWeights,
    Targets,
)
from velocitune_core.job_folder.contents import JOBS, JobFolder, TrainStep, needs_of
from velocitune_core.job_folder.results import Results
from velocitune_core.train.job import Job, TrainJob

PROJECT = Path(__file__).parents[3]
Usage = namedtuple("Usage", "total used free")


def contents_of(params: Params, **changes: object) -> tuple[Contents, Graph]:
    known = replace(Known(Manifest.read(paths.MANIFEST), None, None), **changes)
    graph = steps_of(params, known, compare=True)
    return folder_contents(params, graph, "compare"), graph


def test_the_size_that_is_said_is_that_of_the_folder(
    fresh: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents, graph = contents_of(settings())
    with caplog.at_level(logging.INFO):
        write_folder(contents, tmp_path / "folder", graph.steps)
    written = [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]
    assert contents.size_bytes == sum(path.stat().st_size for path in written)
    assert f"12 steps, 0 finished before; {contents.size_bytes / 10**6:.1f} MB" in caplog.text
    absolute = [path for path in written if path.suffix == ".json" and str(fresh) in path.read_text()]
    assert absolute == []


def test_every_step_comes_after_those_it_depends_on(fresh: Path) -> None:
    _, graph = contents_of(settings())
    before: set[str] = set()
    for step in graph.steps:
        assert needs_of(step) <= before, step.name
        before.add(step.name)
    names = {f"{label}-seed-1" for label in RUNS} | {"doremi-seed-1-search"}
    assert before == names | {"initial", "targets"} | {f"proxy-0_{n}-seed-1" for n in (2, 4, 8)}
    kept = {step.name for step in graph.steps if isinstance(step, TrainStep) and step.keeps_model}
    assert kept == {"static-seed-1"}  # the reference of doremi


@pytest.mark.parametrize(
    ("strategy", "runs"),
    [
        ("velocitune", ["training"]),
        ("recommended", ["training-search", "training"]),
        ("doremi", ["training-reference", "training-search", "training"]),
    ],
)
def test_the_main_run_brings_its_search_and_its_reference(fresh: Path, strategy: str, runs: list[str]) -> None:
    params = settings(strategy__name=strategy, strategy__options={})
    graph = steps_of(params, Known(Manifest.read(paths.MANIFEST), None, None), compare=False)
    last = graph.steps[-len(runs) :]
    assert [step.name for step in last] == runs
    assert [step.name for step in last if isinstance(step, TrainStep) and step.keeps_model] == [
        name for name in runs if not name.endswith("search")
    ]


def test_a_planned_run_follows_once_its_weights_are_planned_from_the_swarm(fresh: Path) -> None:
    params = settings(strategy__name="planned", strategy__options={"swarm": {"runs": 4}})
    manifest = Manifest.read(paths.MANIFEST)
    known = Known(manifest, None, None)
    first = steps_of(params, known, compare=False)
    swarm = [f"swarm-0_2-seed-1-0{number}" for number in (1, 2, 3)]
    assert [step.name for step in first.steps][-4:] == ["targets", *swarm]  # the static run is a proxy
    jobs = [first.jobs[name] for name in ("proxy-0_2-seed-1", *swarm)]
    runs = [swarm_run_of(job) for job in jobs]
    plan = {"fraction": 0.2, "model": None, "runs": runs, "law": {}, "plan": {}, "worth": WORTH, "explanation": []}
    weights, (initial, targets) = {"code": 0.25, "law": 0.75}, measured()
    known = Known(manifest, None, (initial, targets))
    mixture = mixture_of(params, params.strategy.options)
    inputs = plan_inputs(params, mixture, swarm_jobs(params, manifest, mixture), manifest, initial, targets)
    found = {"strategy": "planned", "found_by": "planned", "domain_weights": weights, "planned": plan, "inputs": inputs}
    StartingWeights.model_validate(found).write(paths.WEIGHTS)
    second = steps_of(params, known, compare=False)
    main = second.jobs["training"]
    assert isinstance(main, TrainJob) and main.initial_domain_weights == weights
    for other in ({"inputs": inputs | {"runs": {}}}, {"planned": plan | {"missing_runs": [swarm[-1]]}}):
        StartingWeights.model_validate(found | other).write(paths.WEIGHTS)  # of another swarm, or without a run of it
        assert "training" not in steps_of(params, known, compare=False).jobs
    graph = Graph(first.steps, first.jobs)
    assert missing_runs("train", graph, Results(Path(), graph.steps, graph.jobs)) == ["training"]
    compared = settings(compare__runs={"static": {"strategy": "static"}, "planned": {"strategy": "planned"}})
    with pytest.raises(ConfigError, match=r"compare\.runs\.planned: .*leave the label out"):
        check_can_leave(compared, compare=True)
    check_can_leave(compared, compare=False)


WORTH = {"gain": 0.0, "share": 1.0, "static_gain": None, "pays_from": None}


def swarm_run_of(job: Job) -> dict[str, Any]:
    price = {"name": job.name, "folder": job.folder_name, "tokens": 512, "flops": 1e9, "seconds": 1.0}
    return price | {"fraction": 0.2, "seed": 1, "domain_weights": {"code": 0.5, "law": 0.5}, "losses": {}}


def measured() -> tuple[InitialLosses, Targets]:
    initial = InitialLosses(precision="float32", losses={"code": 4.0, "law": 4.5}, tokens={}, seconds=0.0)
    return initial, Targets.model_validate({"domains": {"code": {"target": 2.0}, "law": {"target": 3.0}}})


def test_measured_losses_and_targets_are_written_into_the_jobs(fresh: Path) -> None:
    _, graph = contents_of(settings(), measured=measured())
    job = graph.jobs["velocitune-seed-1"]
    assert isinstance(job, TrainJob)
    assert job.strategy.options["target_loss"] == {"code": 2.0, "law": 3.0}
    assert "proxy-0_2-seed-1" not in graph.jobs and not any(needs_of(step) for step in graph.steps[:4])


def test_equal_files_are_stored_once(fresh: Path, tmp_path: Path) -> None:
    tree = Manifest.read(paths.MANIFEST)
    code = tree.domains["code"]
    twice = {"code": code, "law": code.model_copy(update={"train": code.train})}
    (paths.PREPARED / "copied").mkdir()
    second = code.train.model_copy(update={"file": "copied/train.npy"})
    (paths.PREPARED / "copied/train.npy").write_bytes((paths.PREPARED / "code/train.npy").read_bytes())
    twice["law"] = code.model_copy(update={"train": second})
    contents, graph = contents_of(settings(), manifest=tree.model_copy(update={"domains": twice}))
    write_folder(contents, tmp_path / "folder", graph.steps)
    folder = JobFolder.read(tmp_path / "folder" / JOBS)
    assert folder.copies == {"prepared/copied/train.npy": "prepared/code/train.npy"}
    assert not (tmp_path / "folder/prepared/copied").exists()


def test_a_model_elsewhere_is_named_and_not_copied(
    fresh: Path, tiny_inputs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents, _ = contents_of(settings(model__path=str(tiny_inputs / "model")))
    assert not [name for name in contents.files if "model" in name]
    assert "put it at the same place" in caplog.text


def test_a_folder_that_is_not_empty_or_a_disk_that_is_full_is_refused(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    check_destination(tmp_path / "new")
    with pytest.raises(ConfigError, match="is not empty"):
        check_destination(fresh)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is no folder, so that nothing can be in it"):
        check_destination(tmp_path / "file/jobs")
    contents, graph = contents_of(settings())
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10, 10, 1000))
    with caplog.at_level(logging.INFO), pytest.raises(ConfigError, match="its disk has"):
        write_folder(contents, tmp_path / "folder", graph.steps)
    assert " MB" in caplog.text  # the size is said before anything is written
    assert not (tmp_path / "folder").exists()


def test_two_runs_of_one_name_are_refused(fresh: Path) -> None:
    with pytest.raises(ConfigError, match="two runs would have the name proxy-0_2-seed-1"):
        contents_of(settings(compare__runs=RUNS | {"proxy-0_2": {"strategy": "uniform"}}))


def test_the_base_of_a_folder_is_trained_with_the_attention_of_the_mixture(workspace: Path) -> None:
    params = load_params(PROJECT / "params.yaml")
    split = Split(file="x.npy", documents=1, sequences=10_000, tokens=10_000 * 128, sha256="0")
    domain = DomainManifest(train=split, held_out=split, documents_read=1, duplicates=0, too_short=0)
    UNTRAINED.mkdir(parents=True)
    (UNTRAINED / "config.json").write_text("{}")
    for mask in (False, True):
        borders = DocumentBorders(end=Border(ids=[5], tokens=["x"]), mask=mask)
        domains = dict.fromkeys(params.training_domains, domain)
        manifest = Manifest(
            sequence_length=params.data.sequence_length,
            vocabulary_size=64,
            tokenizer_sha256="",
            documents=borders,
            domains=domains,
        )
        graph = steps_of(params, Known(manifest, domains, None), compare=False)
        starts = [job.document_start for job in graph.jobs.values()]
        assert "base" in graph.jobs and set(starts) == {5 if mask else None}


def test_the_medium_mixture_fits_into_60_megabytes(workspace: Path) -> None:
    """By arithmetic: caps, and 27 MB of text at three bytes per token for the domains without one."""
    params = load_params(PROJECT / "large/medium.yaml")
    assert params.base is not None
    length = params.data.sequence_length
    uncapped = {"python": 11e6 / 3, "perl": 9e6 / 3, "general": 7e6 / 3}

    def split(name: str, tokens: float) -> Split:
        rows = int(tokens) // length
        return Split(file=f"{name}.npy", documents=1, sequences=rows, tokens=rows * length, sha256=name)

    held_out = params.data.held_out_sequences * length
    domains = {
        name: DomainManifest(
            train=split(name, domain.max_tokens or uncapped[name]),
            held_out=split(f"{name}-held-out", held_out),
            documents_read=1,
            duplicates=0,
            too_short=0,
        )
        for name, domain in params.domains.items()
    }
    assert set(params.base.domains or ()) == set(uncapped)  # shared with the mixture, file by file
    manifest = Manifest(sequence_length=length, vocabulary_size=16384, tokenizer_sha256="", domains=domains)
    base = {name: domains[name] for name in uncapped}
    UNTRAINED.mkdir(parents=True)
    (UNTRAINED / "config.json").write_text("{}")
    graph = steps_of(params, Known(manifest, base, None), compare=True)
    packed = 2 * sum(domain.train.tokens + 2 * domain.held_out.tokens for domain in domains.values())
    assert 44e6 < packed < 56e6
    trained = [
        job.total_steps * job.training.batch_sequences * length
        for job in graph.jobs.values()
        if isinstance(job, TrainJob)
    ]
    assert len(trained) == 1 + 4 + 30 + 3 and 0.9e9 < sum(trained) < 1.0e9
    assert shape_of(read_model_config(params)).parameters == 30_531_072
