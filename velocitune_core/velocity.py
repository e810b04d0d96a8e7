"""Learning velocity and the weight update of Velocitune (Luo et al., 2025, arXiv 2411.14318, section 3)."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class VelocityError(ValueError):
    """Losses or weights for which the method is not defined."""


class GapPolicy(StrEnum):
    """How to treat a domain whose target loss is not below its initial loss, so that there is no gap to close."""

    ERROR = "error"  # name the domain and stop
    FREEZE = "freeze"  # velocity 0, so its weight decays at every update
    HOLD = "hold"  # keep its initial weight; update the others
    RETAIN = "retain"  # velocity grows with forgetting: 0 at the initial loss, 1 at a configured excess over it


def learning_velocity(loss: ArrayLike, initial_loss: ArrayLike, target_loss: ArrayLike) -> NDArray[np.float64]:
    """Return V_t[i] = clip((ℓ_t[i] − ℓ_target[i]) / (ℓ_init[i] − ℓ_target[i]), 0, 1), the share of the gap still open.

    1 = nothing learnt yet, 0 = at target: a large velocity marks a *slow* domain. Where the target is not below the
    initial loss there is no gap, and the velocity is 0.

    Args:
        loss, initial_loss, target_loss: (K,) held-out losses in nats per token.

    Returns:
        (K,) in [0, 1].

    Raises VelocityError if shapes differ or a loss is not finite.
    """
    loss, initial_loss, target_loss = (np.asarray(each, dtype=float) for each in (loss, initial_loss, target_loss))
    if not loss.shape == initial_loss.shape == target_loss.shape:
        raise VelocityError(
            f"shapes differ: loss {loss.shape}, initial {initial_loss.shape}, target "
            f"{target_loss.shape}; give one loss per domain in each"
        )
    for name, values in (("loss", loss), ("initial_loss", initial_loss), ("target_loss", target_loss)):
        if not np.all(np.isfinite(values)):
            raise VelocityError(f"{name} {values.tolist()} must be finite")
    gap = initial_loss - target_loss
    velocity = np.zeros_like(gap)
    with np.errstate(over="ignore"):  # a tiny gap may overflow to ±infinity, which clip handles
        np.divide(loss - target_loss, gap, out=velocity, where=gap > 0)
    return np.clip(velocity, 0.0, 1.0)


def forgetting_velocity(loss: ArrayLike, initial_loss: ArrayLike, scale: float) -> NDArray[np.float64]:
    """Return the velocity of `retain`: clip((ℓ_t − ℓ_init) / (scale · ℓ_init), 0, 1).

    0 while the loss is at most the initial loss, 1 once it exceeds it by the share `scale`.

    Args:
        loss, initial_loss: (K,) held-out losses in nats per token.
        scale: share of the initial loss, above 0.

    Returns:
        (K,) in [0, 1].
    """
    loss, initial_loss = np.asarray(loss, dtype=float), np.asarray(initial_loss, dtype=float)
    return np.clip((loss - initial_loss) / (scale * initial_loss), 0.0, 1.0)


def update_weights(
    weights: ArrayLike, velocity: ArrayLike, *, step_size: float = 1.0, smoothing: float = 0.0
) -> NDArray[np.float64]:
    """Return w_t[i] ∝ w_{t−m}[i] · exp(η · V_t[i]), then smoothed: w ← (1 − c) · w + c / K.

    Args:
        weights: (K,) domain weights, non-negative, not all zero; a weight of 0 stays 0 unless smoothed.
        velocity: (K,).
        step_size: η; the paper uses 1.
        smoothing: c, the share mixed in uniformly; the paper uses 0.

    Returns:
        (K,) that sums to 1.

    Raises VelocityError if shapes differ, weights are negative or all zero, or a value is not finite.
    """
    weights, velocity = np.asarray(weights, dtype=float), np.asarray(velocity, dtype=float)
    if weights.shape != velocity.shape:
        raise VelocityError(
            f"shapes differ: weights {weights.shape}, velocity {velocity.shape}; give one of each per domain"
        )
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise VelocityError(f"weights {weights.tolist()} must be finite, non-negative and not all zero")
    if not np.all(np.isfinite(velocity)):
        raise VelocityError(f"velocity {velocity.tolist()} must be finite")
    with np.errstate(divide="ignore"):  # log(0) = −inf keeps a weight of 0 at 0
        logits = np.log(weights) + step_size * velocity
    updated = np.exp(logits - logits.max())
    updated /= updated.sum()
    return (1.0 - smoothing) * updated + smoothing / updated.size
