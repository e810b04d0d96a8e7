"""The stages' files: what is written is read back, and what is wrong with a file is reported by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from comparison_samples import comparison, run

from velocitune_core.contracts import (
    Comparison,
    ContractError,
    DomainFiles,
    InitialLosses,
    Law,
    LossPoint,
    ProxyResult,
    Targets,
    Timings,
    TrainResult,
    WeightPoint,
)


def train_result() -> TrainResult:
    return TrainResult(
        name="training",
        strategy="velocitune",
        precision="float32",
        steps=2,
        tokens=64,
        parameters=7,
        final={"code": 2.5, "law": 3.0},
        points=[LossPoint(step=2, tokens=64, losses={"code": 2.5, "law": 3.0})],
        domain_weights=[
            WeightPoint(step=0, tokens=0, weights={"code": 0.5, "law": 0.5}),
            WeightPoint(
                step=1,
                tokens=32,
                weights={"code": 0.25, "law": 0.75},
                velocity={"code": 0.0, "law": 1.0986122886681098},
            ),
        ],
        mean_domain_weights={"code": 0.375, "law": 0.625},
        tokens_per_domain={"code": 24, "law": 40},
        epochs_per_domain={"code": 0.1, "law": 0.2},
        tokens_per_second=16.0,
        seconds=Timings(training=3.0, sampling=1.0, total=5.0),
        resumed=1,
    )


@pytest.mark.parametrize(
    "content",
    [
        train_result(),
        InitialLosses(precision="float32", losses={"code": 4.1}, tokens={"code": 512}, seconds=0.5),
        comparison(run("static", 1, {"code": 2.0, "law": 3.0, "general": 4.0})),
    ],
    ids=lambda content: type(content).__name__,
)
def test_a_written_file_is_read_back_equal(content: TrainResult | InitialLosses | Comparison, tmp_path: Path) -> None:
    path = tmp_path / "results" / "file.json"
    content.write(path)
    assert type(content).read(path) == content


def test_the_final_losses_of_a_proxy_are_those_of_its_last_point() -> None:
    points = [LossPoint(step=step, tokens=10 * step, losses={"code": 5.0 - step}) for step in (1, 2)]
    proxy = ProxyResult(
        name="p", precision="float32", fraction=0.1, seed=1, steps=2, tokens=20, points=points, seconds=1.0
    )
    assert proxy.final.losses == {"code": 3.0}


def test_targets_written_by_hand_need_only_a_target_per_domain(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text('{"domains": {"code": {"target": 2}, "law": {"target": 3.25}}}')
    targets = Targets.read(path)
    assert targets.losses() == {"code": 2.0, "law": 3.25}
    assert all(domain.evidence is None and domain.flags == [] for domain in targets.domains.values())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file; run the stage that makes it"),
        ("{", "not a valid Targets file"),
        ('{"domains": {}}', "domains"),
        ('{"domains": {"code": {"target": "two"}}}', "domains.code.target"),
        ('{"domains": {"code": {"target": NaN}}}', "domains.code.target"),
        ('{"domains": {"code": {"target": 2, "goal": 1}}}', "domains.code.goal"),
        ('{"domains": {"code": {"target": 2}}, "schema_version": 1}', "has schema version 1"),
        ('{"domains": {"code": {"target": 2}}, "schema_version": 4}', "has schema version 4"),
        ('{"domains": {"code": {"target": 2}}, "schema_version": "two"}', "has schema version 'two'"),
    ],
)
def test_an_unusable_file_is_named_with_its_fields(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "targets.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ContractError) as caught:
        Targets.read(path)
    assert str(path) in str(caught.value) and problem in str(caught.value)


def test_bytes_that_are_not_utf_8_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_bytes(b'{"domains": {"\xff": {"target": 2}}}')
    with pytest.raises(ContractError, match=r"targets\.json: not JSON"):
        Targets.read(path)


def test_every_wrong_field_is_reported_at_once(tmp_path: Path) -> None:
    tree = json.loads(train_result().model_dump_json())
    tree["final"]["code"] = None
    tree["resumed"] = -1
    tree["weights"] = tree.pop("domain_weights")
    path = tmp_path / "train.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ContractError) as caught:
        TrainResult.read(path)
    assert all(name in str(caught.value) for name in ("final.code", "resumed", "weights", "domain_weights"))


def test_a_file_of_an_older_version_is_not_a_file_with_wrong_fields(tmp_path: Path) -> None:
    tree = json.loads(train_result().model_dump_json())
    tree["weights"], tree["mean_weights"] = tree.pop("domain_weights"), tree.pop("mean_domain_weights")
    del tree["precision"]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({**tree, "schema_version": 1}))
    with pytest.raises(ContractError) as caught:
        TrainResult.read(path)
    assert str(caught.value) == (
        f"{path}: has schema version 1, and this version of Velocitune reads 3; run the stage that makes it again"
    )


def test_laws_by_hand() -> None:
    chinchilla = Law(E=2.0, B=100.0, beta=0.5)
    np.testing.assert_allclose(chinchilla.predict([100.0, 10_000.0]), [12.0, 3.0])
    anchored = Law(kind="anchored", E=2.0, B=30.0, beta=0.5, D0=100.0)
    np.testing.assert_allclose(anchored.predict([0.0, 800.0]), [5.0, 3.0])


def test_paths_of_packed_files_are_never_converted() -> None:
    with pytest.raises(ValueError, match="train"):
        DomainFiles.model_validate({"train": 1, "held_out": "h", "train_sha256": "", "held_out_sha256": ""})


def test_a_domain_twice_in_a_file_written_by_hand_is_refused(tmp_path: Path) -> None:
    """Readers of JSON take the last one silently."""
    path = tmp_path / "targets.json"
    path.write_text('{"domains": {"code": {"target": 2.0}, "law": {"target": 3.0}, "code": {"target": 1.0}}}')
    with pytest.raises(ContractError, match=r"targets\.json: the key 'code' is there twice in one object; remove one"):
        Targets.read(path)
