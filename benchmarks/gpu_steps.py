"""Steps of a Learner on made-up tokens, timed: for `benchmarks/gpu.py`."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from gpu_inputs import DOMAINS
from gpu_waits import waits

from velocitune_core.train.learner import Learner

DOCUMENT_START, DOCUMENTS = 1, 4  # token that documents begin with, and how many there are in a sequence


def timed_steps(
    learner: Learner, size: tuple[int, int], vocabulary: int, device: torch.device, steps: int
) -> dict[str, Any]:
    """Return the seconds of the first step, the median of later ones, and where a step waits for the GPU.

    `size` is of a batch: sequences, tokens in each.
    """
    random = np.random.default_rng(0)
    batch, length = size
    domains = np.arange(batch) % DOMAINS

    def batch_of_tokens() -> torch.Tensor:
        tokens = random.integers(2, vocabulary, size=size)
        tokens[:, :: length // DOCUMENTS] = DOCUMENT_START
        return torch.from_numpy(tokens)

    def take(sequences: torch.Tensor) -> None:
        learner.gradients(sequences, domains, DOMAINS)
        learner.apply(1e-4)

    def step() -> float:
        sequences = batch_of_tokens()
        begun = time.perf_counter()
        take(sequences)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    first = step()
    step()
    seconds = statistics.median(step() for _ in range(steps))
    return {"first": first, "seconds": seconds, "places": waits(lambda: take(batch_of_tokens()), device)}
