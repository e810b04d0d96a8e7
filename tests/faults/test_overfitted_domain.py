"""A strategy gives more and more to a domain whose held-out loss rises."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LENGTH, VOCABULARY, job
from trainings import Run, assert_ends_like, signal_at, train

from velocitune_core.contracts import overfitted_domains
from velocitune_core.train.events import Overfitted
from velocitune_core.train.timeline import timeline


@pytest.fixture(scope="module")
def inputs(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out text of `code` that its training text says nothing about: the surer of that, the worse."""
    folder = tmp_path_factory.mktemp("overfitted") / "inputs"
    shutil.copytree(tiny_inputs, folder)
    unrelated = np.random.default_rng(0).integers(VOCABULARY, size=(9, LENGTH))
    np.save(folder / "code" / "held_out.npy", unrelated.astype(np.uint16))
    return folder


def overfitting(inputs: Path, output: Path) -> dict[str, Any]:
    """30 steps, evaluated every five and saved every seven: `code` counts as far from its target all the time."""
    changes = {"training__optimizer__learning_rate": 3e-2, "execution__checkpoint_every_steps": 7}
    return job(inputs, output, total_steps=30, **changes)


def of_the_domain(run: Run) -> list[Overfitted]:
    return [event for event in timeline(run.events) if isinstance(event, Overfitted)]


@pytest.mark.slow  # three trainings
def test_it_is_warned_of_once_also_if_the_run_is_killed_there(inputs: Path, tmp_path: Path) -> None:
    unbroken = train(overfitting(inputs, tmp_path / "unbroken"))
    (event,) = of_the_domain(unbroken)
    assert list(event.domains) == ["code"]
    code, result = event.domains["code"], unbroken.result
    assert overfitted_domains(result.points, result.domain_weights)["code"] == code.model_copy(update={"epochs": None})
    assert event.step == code.step < 30  # while the run goes on, and is not repeated at later evaluations
    assert code.loss > code.lowest_loss + 0.05 and code.weight > code.lowest_weight
    assert code.epochs is not None and 0 < code.epochs < result.epochs_per_domain["code"]
    assert unbroken.stderr.count("code is probably overfitted") == 1
    assert "training.max_epochs" in unbroken.stderr

    broken = overfitting(inputs, tmp_path / "broken")
    signal_at(code.step, signal.SIGKILL, broken, Overfitted)
    resumed = train(broken)
    assert resumed.resumed_from[-1] is None or resumed.resumed_from[-1] < code.step
    assert_ends_like(resumed, unbroken)  # with all events
    assert len(of_the_domain(resumed)) == 1
