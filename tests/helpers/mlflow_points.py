"""A small run's events, and what MLflow's store must hold of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from tasks.views.mlflow_runs import CONFIG_TAG
from tasks.views.mlflow_watcher import RunWatcher
from velocitune_core.config import Params
from velocitune_core.train.events import (
    Evaluated,
    Event,
    Finished,
    Reweighted,
    Started,
    Stepped,
    read_events,
)

FOLDER = Path("training-1")

Points = dict[str, list[tuple[int, int, float]]]  # metric → (step, milliseconds, value)


def sample_events() -> list[Event]:
    """The events of a small run, with values that have no exact decimal."""
    start = 1_750_000_000.1234567
    found: list[Event] = [
        Started(
            time=start,
            name="training",
            total_steps=6,
            tokens_per_step=96,
            domains=["code", "law"],
            strategy="velocitune",
            precision="float32",
            parameters=1000,
            device="cpu",
            world_size=1,
        )
    ]
    for step in range(1, 7):
        found.append(
            Stepped(
                time=start + step / 7,
                step=step,
                tokens=96 * step,
                loss=4.0 / 3 / step,
                learning_rate=1e-3 / step,
                gradient_norm=0.1 * step,
                tokens_per_second=1e5 / 3,
                domain_tokens={"code": 64 * step, "law": 32 * step},
                domain_epochs={"code": step / 9, "law": step / 11},
            )
        )
        if step % 2 == 0:
            losses = {"code": 3.0 / step, "law": 5.0 / step}
            weights = {"code": 1 / 3, "law": 2 / 3}
            velocity = {"code": 0.1, "law": 1 / step}
            later = start + (step + 0.5) / 7
            found.append(Evaluated(time=later, step=step, tokens=96 * step, losses=losses, seconds=0.1))
            found.append(
                Reweighted(time=later, step=step, tokens=96 * step, weights=weights, velocity=velocity, seconds=0.1)
            )
    return [*found, Finished(time=start + 2, step=6, seconds=2.0)]


def expected(path: Path, events: Sequence[Event] | None = None) -> Points:
    """The metrics that the store must hold, from the lines of the file, or from some of them."""
    points: Points = {}

    def add(event: Event, section: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            points.setdefault(f"{section}/{name}", []).append((event.step, round(event.time * 1000), value))

    for event in read_events(path) if events is None else events:
        if isinstance(event, Stepped):
            names = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
            add(event, "train", {name: getattr(event, name) for name in names})
            add(event, "tokens", {name: float(count) for name, count in event.domain_tokens.items()})
            add(event, "epochs", event.domain_epochs)
        elif isinstance(event, Evaluated):
            add(event, "loss", event.losses)
            add(event, "average_loss", {"macro": sum(event.losses.values()) / len(event.losses)})
        elif isinstance(event, Reweighted):
            add(event, "weight", event.weights)
            add(event, "velocity", event.velocity or {})
    return points


def stored(client: MlflowClient, run_id: str) -> Points:
    """Every metric of a run in the store."""
    history = {key: client.get_metric_history(run_id, key) for key in client.get_run(run_id).data.metrics}
    return {
        key: sorted((point.step, point.timestamp, point.value) for point in points) for key, points in history.items()
    }


def replay(watcher: RunWatcher, path: Path) -> str:
    for event in read_events(path):
        watcher(event)
    watcher.close()
    return watcher.run_id


def experiment_of(client: MlflowClient, params: Params) -> str:
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert experiment is not None
    return experiment.experiment_id


def parents(client: MlflowClient, params: Params) -> list[Run]:
    runs = client.search_runs([experiment_of(client, params)])
    return [run for run in runs if CONFIG_TAG in run.data.tags]
