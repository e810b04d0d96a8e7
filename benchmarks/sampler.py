"""Measure what drawing a batch costs, by corpus size and number of domains: `python benchmarks/sampler.py`.

A permutation of a domain is walked over the next power of four, so 70,000 sequences (of 262,144) are near the worst
case and 10^6 (of 1,048,576) near the best.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from velocitune_core.mixture import DomainSampler

BATCHES = 500
REPETITIONS = 3


def microseconds_per_batch(domains: int, sequences: int, batch_size: int) -> float:
    """Return the median over repetitions, with weights that change at every batch."""
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(domains), size=BATCHES)
    times = []
    for _ in range(REPETITIONS):
        sizes = {f"domain-{number}": sequences for number in range(domains)}
        sampler = DomainSampler(sizes, seed=1, batch_size=batch_size)
        start = time.process_time()
        for row in weights:
            sampler.next_batch(row)
        times.append((time.process_time() - start) / BATCHES * 1e6)
    return statistics.median(times)


def main() -> None:
    table = Table("domains", "sequences per domain", "batch", "µs of CPU per batch")
    for domains in (7, 1000):
        for sequences in (70_000, 10**6, 10**9):
            for batch_size in (16, 1024):
                cost = microseconds_per_batch(domains, sequences, batch_size)
                table.add_row(f"{domains:,}", f"{sequences:,}", f"{batch_size:,}", f"{cost:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
