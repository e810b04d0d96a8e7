"""The simulated learners of benchmarks/simulate.py: their formula by hand, closed forms, the frontier, the tables."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from velocitune_core.strategies import BatchObservation, Observation, Strategy

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("simulation")


@pytest.fixture
def simulate(simulation: ModuleType) -> ModuleType:
    return importlib.import_module("simulate")


class StaticByUpdates(Strategy):
    """Static weights that the simulation cannot know to be static."""

    def update(self, observation: Observation):
        return super().update(observation)

    def observe_batch(self, batch: BatchObservation) -> None:
        assert batch.sequences.sum() == 256
        assert np.array_equal(np.isnan(batch.losses), batch.sequences == 0)


def two_domains(simulation: ModuleType, **changes: object):
    """One draw: shares 0.75 and 0.25, no transfer, order does not matter."""
    world = simulation.World(
        sizes=np.array([[0.75, 0.25]]),
        initial_loss=np.array([[4.0, 5.0]]),
        floor=np.array([[2.0, 1.0]]),
        exponent=np.array([[0.5, 0.5]]),
        scale=np.array([[0.25, 0.25]]),
        head_start=np.zeros((1, 2)),
        transfer=np.eye(2)[None],
        forgetting=0.0,
        names=["a", "b"],
    )
    return replace(world, **changes)


def test_final_loss_is_the_power_law_by_hand(simulation: ModuleType) -> None:
    world = two_domains(simulation)
    # a: 2 + (4 − 2)·(1 + 0.75/0.25)^−½ = 3;  b: 1 + (5 − 1)·(1 + 0.25/0.25)^−½ = 1 + 4/√2
    assert world.final_losses(world.sizes) == pytest.approx(np.array([[3.0, 1 + 4 / np.sqrt(2)]]))


def test_transfer_adds_tokens_of_others(simulation: ModuleType) -> None:
    world = two_domains(simulation, transfer=np.array([[[1.0, 0.0], [2.0 / 3, 1.0]]]))
    # b: n_eff = 0.25 + ⅔·0.75 = 0.75, so (1 + 3)^−½ = ½
    assert world.final_losses(world.sizes)[0, 1] == pytest.approx(3.0)
    assert simulation.draw_world(simulation.Settings(transfer=0.0), 3, 1).transfer == pytest.approx(
        np.broadcast_to(np.eye(7), (3, 7, 7))
    )
    drawn = simulation.draw_world(simulation.Settings(transfer=0.3), 3, 1).transfer
    assert drawn.sum(axis=-1) == pytest.approx(np.full((3, 7), 1.3))


def test_forgetting_by_hand_and_in_parts(simulation: ModuleType) -> None:
    world = two_domains(simulation, forgetting=2.0, head_start=np.array([[0.0, 1.0]]))
    weights = np.array([[1.0, 0.0]])
    ended = world.advance(world.head_start, weights, 1.0)
    assert ended == pytest.approx(np.array([[1.0, np.exp(-2)]]))  # a is never starved, b gets nothing
    assert world.losses(ended)[0, 1] > 5.0  # forgotten: worse than at the start
    halfway = world.advance(world.head_start, world.sizes, 0.5)
    assert world.advance(halfway, world.sizes, 0.5) == pytest.approx(world.advance(world.head_start, world.sizes, 1.0))


def test_a_head_start_alone_only_shifts_the_law(simulation: ModuleType) -> None:
    world = two_domains(simulation, head_start=np.array([[0.5, 0.0]]))
    shifted = two_domains(simulation, scale=np.array([[0.75, 0.25]]))
    assert world.final_losses(world.sizes) == pytest.approx(shifted.final_losses(world.sizes))


@pytest.mark.parametrize("recency", [False, True])
def test_the_loop_with_constant_weights_is_the_closed_form(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch, recency: bool
) -> None:
    settings = simulation.Settings(recency=recency, retained=recency)
    world = simulation.draw_world(settings, 4, 1)
    monkeypatch.setitem(sys.modules, "stand_in", sys.modules[__name__])
    looped = simulation.simulate(simulation.Candidate("loop", "stand_in:StaticByUpdates"), world, settings, 1)
    static = simulation.simulate(simulation.Candidate("static", "static"), world, settings, 1)
    assert static == pytest.approx(world.final_losses(world.sizes))
    assert looped == pytest.approx(static)


@pytest.mark.parametrize("name", ["velocitune", "doremi", "ado"])
def test_the_seed_decides_everything(simulation: ModuleType, name: str) -> None:
    settings = simulation.Settings(steps=40)

    def losses(seed: int) -> np.ndarray:
        world = simulation.draw_world(settings, 3, seed)
        return simulation.simulate(simulation.Candidate(name, name), world, settings, seed)

    assert np.array_equal(losses(1), losses(1))
    assert not np.allclose(losses(1), losses(2))


def test_targets_are_the_final_losses_of_static_weights(simulation: ModuleType) -> None:
    settings = simulation.Settings()
    world = simulation.draw_world(settings, 3, 1)
    final = world.final_losses(world.sizes)
    assert np.array_equal(simulation.draw_targets(world, settings, 1), final)
    assert simulation.draw_targets(world, replace(settings, bias=0.1), 1) == pytest.approx(1.1 * final)


def test_frontier_distance_by_hand(simulation: ModuleType) -> None:
    macro, weighted = np.array([0.0, -1.0, -2.0, -3.0]), np.array([0.0, 0.5, 4.0, 4.0])

    def distance(x: float, y: float) -> float:
        return simulation.frontier_distance(x, y, macro, weighted)

    # hull: (−3, 4), (−1, 0.5), (0, 0); its first slope is −1.75. (−2, 4) lies above it, by 4 − 2.25
    assert [distance(*point) for point in zip(macro, weighted, strict=True)] == pytest.approx([0, 0, 1.75, 0])
    assert distance(-0.5, 0.1) == pytest.approx(-0.15)  # between (−1, 0.5) and (0, 0)
    assert distance(1.0, 0.2) == pytest.approx(0.2)  # level to the right
    assert distance(-4.0, 5.0) == pytest.approx(5.0 - 5.75)  # straight on to the left
    assert simulation.frontier_distance(-1.0, 1.5, np.array([0.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.5)


def test_points_of_the_frontier_have_distance_0_or_more(simulation: ModuleType, simulate: ModuleType) -> None:
    world = simulation.draw_world(simulation.Settings(), 30, 1)
    judge = simulate.Judge(world)
    by_temperature = [
        judge(world.final_losses(simulate.temperature_weights(world, each))).frontier for each in simulate.FRONTIER
    ]
    assert np.min(by_temperature, axis=0) == pytest.approx(np.zeros(30), abs=1e-12)
    assert judge(world.final_losses(world.sizes)).macro == pytest.approx(np.zeros(30))


def test_command_line_prints_both_tables_and_takes_options(
    simulate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    few = {"domains": ("domains", (3, 100)), "updates per run": ("updates", (5, 10))}
    monkeypatch.setattr(simulate, "CHECKS", few)
    figure = tmp_path / "checks.png"
    simulate.main(
        "--draws 4 --steps 20 --strategies static temperature odm velocitune --set velocitune.step_size=0.3 "
        f"--row velocitune gap_policy=hold step_size_per=budget --recency --retained --figure {figure}".split()
    )
    out = capsys.readouterr().out
    for text in ("temperature T=inf", "odm", "velocitune step_size=0.3", "gap_policy=hold", "updates per run"):
        assert text in out
    assert figure.stat().st_size > 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--steps 7 --updates 2", "multiple of updates"),
        ("--set step_size=1", "STRATEGY.OPTION=VALUE"),
        ("--row velocitune gap_policy", "OPTION=VALUE"),
        ("--strategies velocitune --set velocitune.speed=1", "has no option"),
        ("--strategies nonsense", "choose one of"),
        ("--set velocitune.step_size=1 --strategies static", "not among"),
    ],
)
def test_mistakes_are_named(
    simulate: ModuleType, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        simulate.main(["--draws", "2", *argument.split()])
    assert message in f"{capsys.readouterr().err}{stop.value}"
