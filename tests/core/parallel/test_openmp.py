"""Waiting threads of a run sleep soon, unless the user has chosen otherwise: as libgomp itself reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import job
from trainings import end, start

from velocitune_core.parallel.openmp import short_spin


@pytest.mark.parametrize(
    ("chosen", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_the_training_program_sets_it_before_libgomp_is_loaded(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], spins: str
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    tree = job(tiny_inputs, tmp_path / "run", total_steps=1)
    run = end(start(tree, OMP_DISPLAY_ENV="VERBOSE", **chosen), tree)
    assert run.returncode == 0, run.stderr
    reported = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", run.stderr)
    if not reported:
        pytest.skip("torch has another OpenMP than libgomp here")
    assert set(reported) == {spins}


def test_a_choice_is_left_alone() -> None:
    assert short_spin({"PATH": "/bin"}) == {"GOMP_SPINCOUNT": "1000"}
    assert short_spin({"GOMP_SPINCOUNT": "5"}) == short_spin({"OMP_WAIT_POLICY": "ACTIVE"}) == {}
