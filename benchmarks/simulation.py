"""Simulated learners: domains with power-law learning curves, trained with the weights of a strategy.

A world holds many draws of K domains; arrays are (draws, K), without loops over domains. Tokens are in units of the
token budget, so a run takes 1 in total; losses are in nats per token.

    ℓ_i = E_i + (ℓ_init,i − E_i) · (1 + n_eff,i / D0_i)^(−β_i)          n_eff = transfer matrix · tokens taken by domain

With `recency` order matters. The time of a run is then the share of the sum of all learning rates up to a step; a
domain with weight w_i gains n_eff at the rate (transfer · w)_i and loses it at the rate forgetting · (1 − w_i) ·
n_eff,i. A retained domain starts with n_eff = head start, where its loss is ℓ_init; without recency that is the
same law with D0 + head start instead of D0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.config import Schedule
from velocitune_core.strategies import (
    BatchObservation,
    Observation,
    Strategy,
    make_strategy,
    measured_options,
    search_share,
    strategy_class,
)
from velocitune_core.train.schedule import learning_rate_factor

Array = NDArray[np.float64]
SIZE_DECADES = 2.0
INITIAL_LOSS_NATS = (2.0, 6.0)
FLOOR_SHARE = (0.3, 0.8)  # E as a share of ℓ_init
EXPONENT = (0.1, 0.6)
SCALE_DECADES = (-1.5, 0.5)  # log10 of D0 in units of a mean domain, so that the shape of curves is the same for any K
HEAD_START = (1.0, 3.0)  # of a retained domain, in units of its n_eff under static weights
HEAD_START_SCALE = 0.1  # D0 of a retained domain in units of its head start, so that its curve is nearly flat


@dataclass(frozen=True)
class Settings:
    """Settings of draws and runs."""

    domains: int = 7
    steps: int = 200
    updates: int = 20  # evaluations per run; the last changes no weights
    batch_sequences: int = 256
    noise_nats: float = 0.002  # standard deviation of a held-out loss
    batch_noise_nats: float = 0.5  # of the training loss of one sequence
    transfer: float = 0.3  # n_eff that a domain gains from the others together, per mean token of theirs
    bias: float = 0.0  # targets are the final losses under static weights, times 1 + bias
    target_error: float = 0.0  # standard deviation of each target's own relative error, on top of the bias
    recency: bool = False
    forgetting: float = 1.0  # rate at which a domain of weight 0 loses n_eff, per unit of time
    retained: bool = False  # the first domain of each draw was in the base model's training data

    def __post_init__(self) -> None:
        if not (self.domains >= 2 and 1 <= self.updates <= self.steps and self.batch_sequences >= 1):
            raise ValueError(f"{self}: needs domains ≥ 2, 1 ≤ updates ≤ steps, batch_sequences ≥ 1")
        if self.steps % self.updates:
            raise ValueError(f"steps {self.steps} must be a multiple of updates {self.updates}")
        if min(self.noise_nats, self.batch_noise_nats, self.transfer, self.target_error, self.forgetting) < 0:
            raise ValueError(f"{self}: noise, transfer, target_error and forgetting must not be negative")


@dataclass(frozen=True)
class World:
    """Draws of domains. Arrays are (draws, K); transfer is (draws, K, K)."""

    sizes: Array  # share of the tokens: the initial domain weights
    initial_loss: Array
    floor: Array  # E
    exponent: Array  # β
    scale: Array  # D0
    head_start: Array  # n_eff at the start
    transfer: Array  # n_eff of the row's domain per token of the column's
    forgetting: float  # 0: order does not matter
    names: list[str]

    def losses(self, effective: Array) -> Array:
        """Return the true held-out loss at n_eff; both are (draws, K)."""
        progress = (self.scale + effective) / (self.scale + self.head_start)
        return self.floor + (self.initial_loss - self.floor) * progress ** (-self.exponent)

    def supply(self, weights: Array) -> Array:
        """Return n_eff per token of the mixture, (draws, K)."""
        return np.matmul(self.transfer, weights[..., None])[..., 0]

    def advance(self, effective: Array, weights: Array, duration: float, supply: Array | None = None) -> Array:
        """Return n_eff after training with `weights` for the share `duration` of the run, in closed form."""
        supply = self.supply(weights) if supply is None else supply
        if not self.forgetting:
            return effective + duration * supply
        rate = self.forgetting * np.maximum(1 - weights, 1e-12)
        return effective * np.exp(-rate * duration) - supply * np.expm1(-rate * duration) / rate

    def final_losses(self, weights: Array) -> Array:
        """Return final losses under constant weights, in closed form."""
        return self.losses(self.advance(self.head_start, weights, 1.0))


def draw_world(settings: Settings, draws: int, seed: int) -> World:
    """Draw domains at random."""
    random = np.random.default_rng([seed, 0])
    count = settings.domains
    shape = (draws, count)
    transfer = _draw_transfer(settings, draws, random)
    sizes = 10 ** random.uniform(0, SIZE_DECADES, shape)
    sizes /= sizes.sum(axis=1, keepdims=True)
    initial_loss = random.uniform(*INITIAL_LOSS_NATS, shape)
    floor = initial_loss * random.uniform(*FLOOR_SHARE, shape)
    exponent = random.uniform(*EXPONENT, shape)
    scale = 10 ** random.uniform(*SCALE_DECADES, shape) / count
    head_start = np.zeros(shape)
    if settings.retained:
        supply = np.einsum("dk,dk->d", transfer[:, 0], sizes)
        head_start[:, 0] = supply * np.exp(random.uniform(*np.log(HEAD_START), draws))
        scale[:, 0] = HEAD_START_SCALE * head_start[:, 0]
    forgetting = settings.forgetting if settings.recency else 0.0
    names = [f"domain-{number}" for number in range(count)]
    return World(sizes, initial_loss, floor, exponent, scale, head_start, transfer, forgetting, names)


def _draw_transfer(settings: Settings, draws: int, random: np.random.Generator) -> Array:
    """Draw transfer matrices, (draws, K, K): off-diagonal rows sum to `transfer` for any K, mostly from a few."""
    identity = np.eye(settings.domains)
    if not settings.transfer:
        return np.broadcast_to(identity, (draws, *identity.shape))
    nearness = random.exponential(size=(draws, *identity.shape)) ** 2 * (1 - identity)
    return identity + settings.transfer * nearness / nearness.sum(axis=-1, keepdims=True)


def draw_targets(world: World, settings: Settings, seed: int) -> Array:
    """Return the targets given to strategies, (draws, K): final losses under static weights, with errors."""
    error = np.random.default_rng([seed, 1]).normal(size=world.sizes.shape)
    return world.final_losses(world.sizes) * (1 + settings.bias + settings.target_error * error)


@dataclass(frozen=True)
class Candidate:
    """A strategy with its options, and its label in tables."""

    label: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def follows_targets(self) -> bool:
        """Whether the strategy uses target losses."""
        return "target_loss" in measured_options(self.name)

    def build(self, world: World, targets: Array) -> list[Strategy]:
        """Return one strategy per draw."""
        measured = {"initial_loss": world.initial_loss, "target_loss": targets, "domain_tokens": world.sizes}
        wanted = measured_options(self.name)
        return [
            make_strategy(
                self.name,
                initial_weights=_by_name(world, world.sizes[draw]),
                **{key: _by_name(world, values[draw]) for key, values in measured.items() if key in wanted},
                **self.options,
            )
            for draw in range(len(world.sizes))
        ]


def _by_name(world: World, values: Array) -> dict[str, float]:
    return dict(zip(world.names, values.tolist(), strict=True))


def simulate(candidate: Candidate, world: World, settings: Settings, seed: int) -> Array:
    """Return the final true losses under a strategy, (draws, K). The noise depends on the seed alone."""
    targets = draw_targets(world, settings, seed)
    strategies = candidate.build(world, targets)
    kind = strategy_class(candidate.name)
    watches_batches = kind.observe_batch is not Strategy.observe_batch
    if not watches_batches and kind.update is Strategy.update:
        return world.final_losses(np.stack([each.weights for each in strategies]))
    reference = world.final_losses(world.sizes) if kind.needs_reference else None
    share = search_share(candidate.name) or 1.0
    losses, mean_weights = _run(strategies, world, settings, seed, watches_batches, reference, share)
    if search_share(candidate.name) is None:
        return losses
    return world.final_losses(mean_weights)


def _run(
    strategies: list[Strategy],
    world: World,
    settings: Settings,
    seed: int,
    watches_batches: bool,
    reference: Array | None,
    share: float,
) -> tuple[Array, Array]:
    """Run the training loop: train, observe the batch, evaluate, update.

    Returns final losses and weights averaged over the steps, (draws, K) each; `share` is the length of the run as a
    share of the token budget.
    """
    random = np.random.default_rng([seed, 2])
    time = share * _clock(settings)
    every = settings.steps // settings.updates
    stride = 1 if watches_batches else every
    effective = world.head_start
    losses = world.initial_loss
    mean_weights = np.zeros_like(losses)
    for step in range(stride, settings.steps + 1, stride):
        weights = np.stack([each.weights for each in strategies])
        mean_weights += weights * stride / settings.steps
        effective = world.advance(effective, weights, time[step] - time[step - stride])
        losses = world.losses(effective)
        if watches_batches:
            _show_batches(strategies, weights, losses, step, settings, random, reference)
        if step % every == 0 and step < settings.steps:
            measured = losses + settings.noise_nats * random.normal(size=losses.shape)
            for strategy, row in zip(strategies, measured, strict=True):
                strategy.update(Observation(step, settings.steps, every, _by_name(world, row)))
    return losses, mean_weights


def _clock(settings: Settings) -> Array:
    """Return the time of each step, (steps + 1,): the share of the tokens, or with recency of the learning rates."""
    steps = settings.steps
    rates = np.ones(steps)
    if settings.recency:
        schedule = Schedule()
        rates = np.array([learning_rate_factor(schedule, step, steps) for step in range(steps)])
    return np.concatenate([[0.0], np.cumsum(rates) / rates.sum()])


def _show_batches(
    strategies: list[Strategy],
    weights: Array,
    losses: Array,
    step: int,
    settings: Settings,
    random: np.random.Generator,
    reference: Array | None,
) -> None:
    """Show batches of whole sequences, drawn systematically: unbiased, within one sequence of each weight."""
    edges = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True) * settings.batch_sequences
    ends = np.floor(edges + random.uniform(size=(len(edges), 1)))
    counts = np.diff(ends, axis=1, prepend=0.0).astype(np.int64)
    noise = settings.batch_noise_nats * random.normal(size=losses.shape) / np.sqrt(np.maximum(counts, 1))
    seen = np.where(counts > 0, losses + noise, np.nan)
    excess = None if reference is None else np.maximum(seen - reference, 0.0)
    for draw, strategy in enumerate(strategies):
        strategy.observe_batch(
            BatchObservation(step, settings.steps, counts[draw], seen[draw], None if excess is None else excess[draw])
        )


def lower_left_hull(macro: Array, weighted: Array) -> tuple[Array, Array]:
    """Return the corners of the lower left convex hull of the points, left to right."""
    order = np.lexsort((weighted, macro))
    corners: list[int] = []
    for point in order:
        while len(corners) > 1 and not _turns_left(macro, weighted, corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    chain = np.array(corners)
    chain = chain[: int(np.argmin(weighted[chain])) + 1]
    return macro[chain], weighted[chain]


def _turns_left(x: Array, y: Array, first: int, second: int, third: int) -> bool:
    return (x[second] - x[first]) * (y[third] - y[first]) > (y[second] - y[first]) * (x[third] - x[first])


def frontier_distance(macro: float, weighted: float, frontier_macro: Array, frontier_weighted: Array) -> float:
    """Return the vertical distance to the hull of the frontier's points; negative is a gain.

    Right of the hull the frontier is constant. To the left its first edge is extrapolated, which is below any convex
    frontier and so underestimates gains; for a hull of one point the slope is −1.
    """
    x, y = lower_left_hull(frontier_macro, frontier_weighted)
    if macro < x[0]:
        slope = (y[1] - y[0]) / (x[1] - x[0]) if len(x) > 1 else -1.0
        return float(weighted - (y[0] + slope * (macro - x[0])))
    return float(weighted - np.interp(macro, x, y))
