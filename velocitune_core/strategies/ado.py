"""Adaptive data optimization: more of what is learnt fastest, by online power laws (Jiang et al., arXiv 2410.11820)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from velocitune_core.strategies.base import BatchObservation, Strategy, StrategyError, check_choice

EXPONENTS = np.linspace(0.05, 0.8, 16)  # grid of α; the public code floors α at 0.05 and penalises it above 0.8
HUBER_DELTA = 1e-3
REWEIGHTINGS = 4
FIT_CHUNK = 32  # domains fitted at a time, so that the arrays fit in the processor's cache
MOST_BLOCKS = 64
LEAST_POINTS = 5  # of a domain's law
SMALLEST_LOSS = 1e-6  # for its logarithm
LONGEST_START_STEPS = 1_000


class AdaptiveDataOptimization(Strategy):
    """More of every batch to the domains whose training loss falls fastest per sample, by power laws fitted as it runs.

    Per domain, with n the samples seen and ℓ the training loss:

        L(n) = E + β · n^(−α)                     refitted every `refit_every_steps`
        ρ ∝ μ · √h · α · (L(n) − E) / n           that is μ · √h · |dL/dn|
        ρ = max(ρ, minimum_share), normalised
        w = (1 − s) · π̄ + s · ρ

    μ are the initial domain weights, h the moving average (decay 0.9) of the domains' shares of the batches, π̄ the mean
    of ρ over the steps before, with ρ = μ before the start; s = 0.1.

    Differences between the paper, its public code (yidingjiang/ado) and this implementation:

    - n. The paper counts a domain's own samples ("own"); the code counts the whole batch for every domain ("batch",
      its use_same_step_size, set in its experiments). Default "own": the equations of the paper, with a stable
      solution. With constant slopes of the losses, w would converge to w ∝ (μ · α · (L − E))^⅔ with "own", but to its
      square with "batch", where a domain that grows continues to grow and small domains fall to the minimum.
    - Schedule. The code ignores the first 1,000 of 60,000 steps and refits every 1,000. Here the start is 10 % of the
      run and the interval 5 %, both at most 1,000 steps; the steps before half the start do not enter the fit.
    - Smoothing. The code keeps every step's loss, smooths them (Savitzky–Golay, window 101, order 3) and fits every
      10th. Here losses are averaged over at most 64 blocks of steps that grow with the run, so that the state does not
      grow. A domain absent from a block has no point there; the code repeats its last loss.
    - Fit. Both minimise a Huber loss (δ = 1e-3) of log L. The code starts L-BFGS from 512 points and pushes E above
      e^0.5 = 1.65 nats, too much for code or a well-trained model. Here α is chosen from a grid of 0.05 to 0.8, and
      E ≥ 0 and β ≥ 0 follow in closed form, reweighted for Huber. The code floors α at 0.05 after the fit, here the
      grid does.
    - Minimum. 0.01 in both, before normalisation; here at most half of 1/K, or 100 domains would all be at it.
    - A domain whose loss does not fall has β = 0 and gets the minimum; a domain with too few points for a fit keeps μ.

    Args:
        count: n counts a domain's "own" samples, or those of the whole "batch".
        start_steps: steps with w = μ; None: 10 % of the run, at most 1,000.
        refit_every_steps: None: 5 % of the run, at most 1,000.
        ignore_steps: first steps that the fit leaves out; None: half of start_steps.
        minimum_share: smallest ρ_i before normalisation.
        preference_share: s.
        share_decay: decay of h.

    Raises StrategyError for a share outside [0, 1] or a negative number of steps.
    """

    def __init__(
        self,
        *,
        initial_weights: Mapping[str, float],
        count: Literal["own", "batch"] = "own",
        start_steps: int | None = None,
        refit_every_steps: int | None = None,
        ignore_steps: int | None = None,
        minimum_share: float = 0.01,
        preference_share: float = 0.1,
        share_decay: float = 0.9,
    ) -> None:
        super().__init__(initial_weights=initial_weights)
        check_choice("count", count, ("own", "batch"))
        for key, steps, least in (
            ("start_steps", start_steps, 1),
            ("refit_every_steps", refit_every_steps, 1),
            ("ignore_steps", ignore_steps, 0),
        ):
            if steps is not None and not least <= steps < math.inf:
                raise StrategyError(f"{key} {steps} must be at least {least} and finite")
        for key, share in (
            ("minimum_share", minimum_share),
            ("preference_share", preference_share),
            ("share_decay", share_decay),
        ):
            if not 0 <= share <= 1:
                raise StrategyError(f"{key} {share} must be in [0, 1]")
        domains = len(self.domains)
        self._own, self._preference_share, self._share_decay = count == "own", preference_share, share_decay
        self._steps = (start_steps, refit_every_steps, ignore_steps)
        self.depends_on_total_steps = start_steps is None or refit_every_steps is None
        self._minimum = min(minimum_share, 0.5 / domains)
        self._history = LossHistory(domains)
        self._law: dict[str, NDArray[np.float64]] | None = None  # exponent, floor, scale: (K,), NaN where not fitted
        self._seen = np.zeros(domains)  # samples: n
        self._recent_shares = self.initial_weights.copy()  # h
        self._mean_preference = self.initial_weights.copy()  # π̄

    def observe_batch(self, batch: BatchObservation) -> None:
        start, refit_every, ignored = self._schedule(batch.total_steps)
        total = batch.sequences.sum()
        self._seen = self._seen + (batch.sequences if self._own else total)
        if total > 0:
            decay = self._share_decay
            self._recent_shares = decay * self._recent_shares + (1 - decay) * batch.sequences / total
        if batch.step > ignored:
            self._history.add(batch.losses, batch.sequences, self._seen)
        if batch.step >= start and (self._law is None or (batch.step - start) % refit_every == 0):
            self._law = fit_power_laws(*self._history.points())
        if self._law is None:
            return
        preference = self._preference()
        share = self._preference_share
        self.weights = (1 - share) * self._mean_preference + share * preference
        self.weights /= self.weights.sum()
        self._mean_preference = self._mean_preference + (preference - self._mean_preference) / (batch.step + 1)

    def _schedule(self, total_steps: int) -> tuple[int, int, int]:
        """Return start, refit interval and ignored steps."""
        start, refit_every, ignored = self._steps
        if start is None:
            start = max(1, min(round(0.1 * total_steps), LONGEST_START_STEPS))
        if refit_every is None:
            refit_every = max(1, min(round(0.05 * total_steps), LONGEST_START_STEPS))
        return start, refit_every, start // 2 if ignored is None else ignored

    def _preference(self) -> NDArray[np.float64]:
        """Return ρ, (K,)."""
        assert self._law is not None
        exponent, scale = self._law["exponent"], self._law["scale"]
        seen = np.maximum(self._seen, 1.0)
        slope = exponent * scale * seen ** (-exponent - 1)
        score = self.initial_weights * np.sqrt(self._recent_shares) * slope
        fitted = np.isfinite(score)
        preference = self.initial_weights.copy()
        if (total := score[fitted].sum()) > 0:
            preference[fitted] = score[fitted] / total * self.initial_weights[fitted].sum()
        preference = np.maximum(preference, self._minimum)
        return preference / preference.sum()

    def state_dict(self) -> dict[str, Any]:
        law = self._law or {}
        vectors = {"seen": self._seen, "recent_shares": self._recent_shares, "mean_preference": self._mean_preference}
        return {
            **super().state_dict(),
            **{key: dict(zip(self.domains, values.tolist(), strict=True)) for key, values in vectors.items()},
            "law": {
                key: {name: None if math.isnan(values[i]) else float(values[i]) for i, name in enumerate(self.domains)}
                for key, values in law.items()
            },
            "history": self._history.state_dict(self.domains),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._seen = self.vector(state["seen"], "seen of the saved state")
        self._recent_shares = self.vector(state["recent_shares"], "recent_shares of the saved state")
        self._mean_preference = self.vector(state["mean_preference"], "mean_preference of the saved state")
        # `vector` turns None into NaN
        self._law = {key: self.vector(law, f"{key} of the saved state") for key, law in state["law"].items()} or None
        self._history.load_state_dict(state["history"], self.domains)


class LossHistory:
    """Training losses averaged over at most MOST_BLOCKS blocks of steps, all of one length but the last.

    When all blocks are full, neighbours are merged and the length doubles. A block holds sums, so merging is exact:
    sequences, and losses and samples seen weighted by sequences, each (blocks, K).
    """

    def __init__(self, domains: int) -> None:
        self._sums = np.zeros((MOST_BLOCKS, 3, domains))  # sequences, loss · sequences, samples seen · sequences
        self._block_steps = 1
        self._steps = 0  # added

    def add(self, losses: NDArray[np.float64], sequences: NDArray[np.int64], seen: NDArray[np.float64]) -> None:
        """Add a step: losses, sequences and samples seen, (K,) each; a loss that is not finite is absent."""
        if self._steps == MOST_BLOCKS * self._block_steps:
            merged = self._sums.reshape(MOST_BLOCKS // 2, 2, *self._sums.shape[1:]).sum(axis=1)
            self._sums = np.concatenate([merged, np.zeros_like(merged)])
            self._block_steps *= 2
        count = np.where(np.isfinite(losses), sequences, 0)
        loss = np.where(count > 0, losses, 0.0)
        self._sums[self._steps // self._block_steps] += np.stack([count, count * loss, count * seen])
        self._steps += 1

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return samples seen, mean loss and sequences of every block, each (K, blocks)."""
        blocks = -(-self._steps // self._block_steps)
        count, loss, seen = self._sums[:blocks].transpose(1, 2, 0)  # (K, blocks) each
        divisor = np.maximum(count, 1.0)
        return seen / divisor, loss / divisor, count

    def state_dict(self, domains: Sequence[str]) -> dict[str, Any]:
        blocks = -(-self._steps // self._block_steps)
        by_domain = self._sums[:blocks].transpose(2, 1, 0)  # (K, 3, blocks)
        return {
            "block_steps": self._block_steps,
            "steps": self._steps,
            "sums": {name: by_domain[i].tolist() for i, name in enumerate(domains)},
        }

    def load_state_dict(self, state: Mapping[str, Any], domains: Sequence[str]) -> None:
        self._block_steps, self._steps = int(state["block_steps"]), int(state["steps"])
        self._sums = np.zeros_like(self._sums)
        blocks = -(-self._steps // self._block_steps)
        if blocks:
            by_domain = np.array([state["sums"][name] for name in domains])
            self._sums[:blocks] = by_domain.transpose(2, 1, 0)


def fit_power_laws(
    seen: NDArray[np.float64], losses: NDArray[np.float64], counts: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Fit L(n) = E + β · n^(−α) to each row, E ≥ 0, β ≥ 0, α on a grid, by count-weighted Huber loss of log L.

    Args:
        seen, losses, counts: (K, points) samples seen, nats per token, sequences; points of count 0 are ignored.

    Returns:
        exponent α, floor E (nats per token) and scale β, each (K,); NaN for rows of fewer than LEAST_POINTS points.
    """
    law = np.full((3, len(seen)), np.nan)
    rows = np.flatnonzero((counts > 0).sum(axis=1) >= LEAST_POINTS)
    for begin in range(0, len(rows), FIT_CHUNK):
        chunk = rows[begin : begin + FIT_CHUNK]
        law[:, chunk] = _fit_chunk(seen[chunk], losses[chunk], counts[chunk])
    return dict(zip(("exponent", "floor", "scale"), law, strict=True))


def _fit_chunk(
    seen: NDArray[np.float64], losses: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return α, E and β, (3, rows)."""
    losses = np.maximum(losses, SMALLEST_LOSS)
    unit = seen.max(axis=1)  # n relative to the largest, so that its powers stay near 1
    log_seen = np.log(np.where(counts > 0, seen, unit[:, None]) / unit[:, None])
    power = np.exp(-EXPONENTS[:, None] * log_seen[:, None, :])  # (rows, exponents, points)
    target = losses[:, None, :]
    share = (counts / counts.sum(axis=1, keepdims=True))[:, None, :]
    predicted, residual = np.broadcast_to(target, power.shape), np.zeros_like(power)
    floor = scale = np.zeros(power.shape[:2])
    for _ in range(REWEIGHTINGS):  # Huber by reweighted least squares; an error of log L is one of L divided by L
        weight = share / (predicted**2 * np.maximum(residual, HUBER_DELTA))
        floor, scale = _non_negative_line(power, losses, weight)
        predicted = floor[..., None] + scale[..., None] * power
        residual = np.abs(1 - target / predicted)
    residual = np.abs(np.log(predicted) - np.log(target))
    cost = np.where(residual < HUBER_DELTA, residual**2 / 2, HUBER_DELTA * (residual - HUBER_DELTA / 2))
    best = (share * cost).sum(axis=-1).argmin(axis=1)
    row = np.arange(len(seen))
    exponent = EXPONENTS[best]
    return np.stack([exponent, floor[row, best], scale[row, best] * unit**exponent])


def _non_negative_line(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return intercept and slope of the weighted least squares of y on x, both ≥ 0, (rows, fits).

    x and weight are (rows, fits, points), y (rows, points). If one is at its bound, the other is refitted; x and y are
    positive, so they are never both 0.
    """
    weighted_x = weight * x
    one_and_y = np.stack([np.ones_like(y), y], axis=-1)  # (rows, points, 2)
    total, sum_y = np.moveaxis(weight @ one_and_y, -1, 0)
    sum_x, sum_xy = np.moveaxis(weighted_x @ one_and_y, -1, 0)
    sum_xx = np.einsum("rfp,rfp->rf", weighted_x, x)
    mean_x, mean_y = sum_x / total, sum_y / total
    spread = np.maximum(sum_xx - sum_x * mean_x, 0.0)
    slope = np.maximum(sum_xy - sum_x * mean_y, 0.0)
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 1e-12 * sum_xx)
    intercept = mean_y - slope * mean_x
    slope = np.where(intercept < 0, sum_xy / sum_xx, slope)
    return np.maximum(intercept, 0.0), slope
