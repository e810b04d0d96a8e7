"""What makes a run another run, in a folder of its own, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_samples import BATCH, INITIAL, LENGTH, MANIFEST, SIZES, TARGETS, changed

from tasks.runs.jobs import (
    compared_job,
    proxy_jobs,
    reference_job,
    search_job,
    training_job,
)
from tasks.runs.resolved_precision import resolve_precision
from tasks.runs.run_folder import run_folder
from velocitune_core.config import (
    HOW_PROXIES_RUN,
    ConfigError,
    Execution,
    Params,
    Resources,
    Tracking,
)
from velocitune_core.train.job import TrainJob


def test_another_model_is_another_job(params: Params) -> None:
    before = training_job(params, MANIFEST, INITIAL, TARGETS).fingerprint()
    Path("models/mine/model.safetensors").write_bytes(b"other weights")
    assert training_job(params, MANIFEST, INITIAL, TARGETS).fingerprint() != before


def test_the_dtype_of_the_saved_model_is_no_matter_of_runs_that_save_none(params: Params) -> None:
    rounded = changed(params, model={"save_dtype": "bfloat16"})
    assert training_job(rounded, MANIFEST, INITIAL, TARGETS).save_dtype == "bfloat16"
    before, after = (proxy_jobs(each, MANIFEST) for each in (params, rounded))
    assert [job.fingerprint() for job in before] == [job.fingerprint() for job in after]


def test_recipes_from_before_a_setting_was_added_keep_their_identity(params: Params) -> None:
    recipe = training_job(params, MANIFEST, INITIAL, TARGETS).recipe()
    assert "save_dtype" not in recipe and {"epsilon", "weight_decay_on"}.isdisjoint(recipe["training"]["optimizer"])


HOW: list[tuple[str, dict[str, Any]]] = [  # a value for every setting that says how runs are computed
    ("execution", {"micro_batch_sequences": 4}),
    ("execution", {"evaluation_micro_batch_sequences": 3}),
    ("execution", {"activation_checkpointing": True}),
    ("execution", {"gather": "layer"}),
    ("execution", {"compile": "never"}),
    ("execution", {"log_every_steps": 9}),
    ("execution", {"checkpoint_every_steps": 9}),
    ("execution", {"checkpoints_kept": 9}),
    ("execution", {"on_save_failure": "stop"}),
    ("execution", {"shutdown_seconds": 9}),
    ("resources", {"runs_per_device": 2}),
    ("resources", {"processes": 2}),
    ("resources", {"nodes": 2, "rendezvous": "here:1"}),
    ("resources", {"threads": 2}),
    ("resources", {"downstream_batch_tokens": 2}),
    ("tracking", {"uri": "sqlite:///other.db"}),
    ("tracking", {"experiment": "other"}),
    ("proxies", {"processes": 2}),
    ("proxies", {"retries": 9}),
    ("proxies", {"runner": "ray"}),
]


def test_every_setting_of_how_runs_are_computed_is_tried() -> None:
    sections = {"execution": Execution, "resources": Resources, "tracking": Tracking}
    fields = {(name, field) for name, section in sections.items() for field in section.model_fields}
    fields |= {("proxies", field) for field in HOW_PROXIES_RUN}
    assert fields == {(section, field) for section, values in HOW for field in values}


@pytest.mark.parametrize(("section", "values"), HOW)
def test_no_setting_of_how_runs_are_computed_moves_a_run(params: Params, section: str, values: dict[str, Any]) -> None:
    assert folders(changed(params, **{section: values})) == folders(params)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("training", {"seed": 9}),
        ("training", {"precision": "bfloat16"}),
        ("training", {"optimizer": {"learning_rate": 1e-3, "epsilon": 1e-6}}),
        ("training", {"optimizer": {"learning_rate": 1e-3, "weight_decay_on": "all"}}),
        ("model", {"save_dtype": "bfloat16"}),
        ("mixture", {"initial_domain_weights": {"law": 0.5, "code": 0.5}}),
        ("training", {"token_budget": 20 * BATCH * LENGTH}),
    ],
)
def test_a_setting_of_the_recipe_moves_runs(params: Params, section: str, values: dict[str, Any]) -> None:
    assert folders(params)[0] != folders(changed(params, **{section: values}))[0]


def folders(params: Params) -> list[Path]:
    """Of the training, its search and reference, and the proxies."""
    initial = INITIAL.model_copy(update={"precision": resolve_precision(params.training)})
    job = training_job(params, MANIFEST, initial, TARGETS)
    jobs = [job, search_job(job, SIZES), reference_job(job), *proxy_jobs(params, MANIFEST)]
    return [run_folder(each) for each in jobs]


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_precision_is_resolved_when_a_job_is_built(
    params: Params, monkeypatch: pytest.MonkeyPatch, bfloat16: bool, expected: str
) -> None:
    monkeypatch.setattr("velocitune_core.train.precision.uses_bfloat16", lambda precision, device: bfloat16)
    auto = changed(params, training={"precision": "auto"})
    initial = INITIAL.model_copy(update={"precision": expected})
    jobs = [training_job(auto, MANIFEST, initial, TARGETS), *proxy_jobs(auto, MANIFEST)]
    assert {job.training.precision for job in jobs} == {expected}
    assert resolve_precision(params.training) == "float32"  # as configured


@pytest.mark.parametrize(
    ("here", "setting", "message"),
    [
        ("bfloat16", "auto", "training.precision is auto, which is bfloat16 on this machine, but results/initial.json"),
        ("float32", "bfloat16", "training.precision is bfloat16, but results/initial.json"),
    ],
)
def test_losses_measured_in_another_precision_are_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch, here: str, setting: str, message: str
) -> None:
    monkeypatch.setattr("velocitune_core.train.precision.uses_bfloat16", lambda precision, device: here == "bfloat16")
    runs = {"static": {"strategy": "static"}, "paper": {"strategy": "velocitune"}}
    elsewhere = changed(params, training={"precision": setting}, compare={"seeds": [1], "runs": runs})
    for build in (
        lambda: training_job(elsewhere, MANIFEST, INITIAL, TARGETS),
        lambda: compared_job(elsewhere, MANIFEST, INITIAL, TARGETS, "paper", 1),
    ):
        with pytest.raises(
            ConfigError, match=r"set training\.precision to float32, or measure again with `dvc"
        ) as found:
            build()
        assert message in str(found.value) and "was measured in float32" in str(found.value)
    assert training_job(params, MANIFEST, INITIAL, TARGETS).training.precision == "float32"  # the fix in the message


def test_a_job_without_a_precision_is_refused(params: Params) -> None:
    tree = training_job(params, MANIFEST, INITIAL, TARGETS).model_dump(mode="json")
    del tree["training"]["precision"]  # the default of settings is auto
    with pytest.raises(ValueError, match=r"training\.precision is 'auto'; a job names the precision"):
        TrainJob.model_validate(tree, strict=False)
