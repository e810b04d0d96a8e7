"""What becomes of the other proxies when one fails for good."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Crashed, Failed, State
from tiny import job as tiny_job

from tasks.runs.launch import TrainingFailedError, TrainingStoppedError, run_folder
from tasks.stages.proxies import ProxiesFailedError, missing_proxies, results_of, train_proxy
from tasks.views.terminal import TerminalWatcher
from velocitune_core.config import Proxies, parse_params
from velocitune_core.contracts import LossPoint, ProxyResult
from velocitune_core.train.events import Started, read_events
from velocitune_core.train.job import TrainJob

NAMES = ["proxy-0_1-seed-1", "proxy-0_2-seed-1", "proxy-0_4-seed-1", "proxy-0_8-seed-1"]
BROKEN = Failed(data=TrainingFailedError("ended with status 1"))


def proxy(name: str) -> ProxyResult:
    _, fraction, _, seed = name.split("-")
    end = LossPoint(step=10, tokens=1000, losses={"code": 3.0})
    return ProxyResult(
        name=name,
        fraction=float(fraction.replace("_", ".")),
        seed=int(seed),
        precision="float32",
        steps=10,
        tokens=1000,
        points=[end],
        seconds=1,
    )


def done(name: str) -> State[ProxyResult]:
    return Completed(data=proxy(name))


def test_all_results_without_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert [result.name for result in results_of(NAMES, [done(name) for name in NAMES], 3)] == NAMES
    assert caplog.records == []


def test_three_of_four_are_enough_and_the_fourth_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tasks.stages.proxies"):
        results = results_of(NAMES, [done(NAMES[0]), BROKEN, done(NAMES[2]), done(NAMES[3])], 3)
    assert [result.name for result in results] == [NAMES[0], NAMES[2], NAMES[3]]
    assert "proxy-0_2-seed-1 failed after all retries" in caplog.text and "--single-item proxies" in caplog.text
    settings = Proxies(fractions=[0.1, 0.2, 0.4, 0.8])
    assert missing_proxies(settings, results) == ["proxy-0_2-seed-1"]
    assert missing_proxies(settings, [proxy(name) for name in NAMES]) == []


@pytest.mark.parametrize("lost", [BROKEN, Crashed(data=TrainingFailedError("ended with status 1"))])
def test_two_sizes_are_refused_with_the_first_failure(lost: State[ProxyResult]) -> None:
    with pytest.raises(ProxiesFailedError, match=r"proxy-0_1-seed-1, proxy-0_8-seed-1 failed, .* not 2") as refused:
        results_of(NAMES, [lost, done(NAMES[1]), done(NAMES[2]), BROKEN], 3)
    assert "ended with status 1" in str(refused.value.__cause__)


def test_a_proxy_that_was_stopped_has_not_failed() -> None:
    stopped = Failed(data=TrainingStoppedError("ended with status 75"))
    with pytest.raises(TrainingStoppedError):
        results_of(NAMES, [done(NAMES[0]), stopped, done(NAMES[2]), done(NAMES[3])], 3)


def test_other_seeds_of_a_size_are_no_other_size() -> None:
    names = ["proxy-0_1-seed-1", "proxy-0_1-seed-2", "proxy-0_2-seed-1", "proxy-0_4-seed-1"]
    with pytest.raises(ProxiesFailedError, match="not 2"):
        results_of(names, [done(names[0]), done(names[1]), done(names[2]), BROKEN], 3)


@pytest.mark.usefixtures("workspace", "forked_program")
@pytest.mark.slow
def test_a_proxy_uses_its_configured_processes(
    settings: dict[str, Any], tiny_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no server for six steps
    monkeypatch.setattr("tasks.stages.proxies.PrefectWatcher", lambda name: TerminalWatcher())
    settings["proxies"]["processes"] = 2
    settings["resources"] = {"threads": 1}
    job = TrainJob.model_validate(tiny_job(tiny_inputs, Path(), fraction=0.4, total_steps=6), strict=False)
    result = train_proxy.fn(job, parse_params(settings))
    (started,) = [e for e in read_events(run_folder(job) / "events.jsonl") if isinstance(e, Started)]
    assert started.world_size == 2 and result.steps == 6
    assert result.precision == started.precision == job.training.precision
