"""Compare drawing batches with `datasets.interleave_datasets` over seven domains: `python benchmarks/interleave.py`.

Both draw with the same probabilities from the same packed rows on disk and return (16, 256) token ids. Only
DomainSampler takes new weights at every batch. Times are CPU times of the process, so that other load affects both
alike.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table

from velocitune_core.contracts import DomainFiles
from velocitune_core.data.dataset import PackedDomains
from velocitune_core.mixture import DomainSampler

WEIGHTS = np.array([0.334, 0.2, 0.133, 0.133, 0.067, 0.067, 0.066])
ROWS, LENGTH, BATCH = 20_000, 256, 16
BATCHES, REPETITIONS = 1000, 5


def ours(folder: Path) -> Iterator[Any]:
    packed = PackedDomains(
        {
            f"domain-{number}": DomainFiles(
                train=str(folder / f"{number}.npy"),
                held_out=str(folder / f"{number}.npy"),
                train_sha256="",
                held_out_sha256="",
            )
            for number in range(len(WEIGHTS))
        }
    )
    sampler = DomainSampler(packed.sizes, seed=1, batch_size=BATCH)
    while True:
        yield packed.read(*sampler.next_batch(WEIGHTS))


def interleaved(folder: Path) -> Iterator[Any]:
    domains = [
        datasets.load_from_disk(str(folder / str(number))).with_format("torch").to_iterable_dataset(num_shards=1)
        for number in range(len(WEIGHTS))
    ]
    mixed = datasets.interleave_datasets(
        domains, probabilities=WEIGHTS.tolist(), seed=1, stopping_strategy="all_exhausted"
    )
    yield from mixed.iter(batch_size=BATCH)


def drawn_alone(folder: Path) -> Iterator[Any]:
    sampler = DomainSampler({f"domain-{number}": ROWS for number in range(len(WEIGHTS))}, seed=1, batch_size=BATCH)
    while True:
        yield sampler.next_batch(WEIGHTS)


CANDIDATES = {
    drawn_alone: "DomainSampler, drawing alone",
    ours: "DomainSampler and PackedDomains",
    interleaved: "datasets.interleave_datasets",
}


def write_rows(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(len(WEIGHTS)):
        rows = random.integers(2**15, size=(ROWS, LENGTH), dtype=np.uint16)
        np.save(folder / f"{number}.npy", rows)
        features = datasets.Features({"input_ids": datasets.Sequence(datasets.Value("uint16"), length=LENGTH)})
        table = datasets.Dataset.from_dict({"input_ids": list(rows)}, features=features)
        table.save_to_disk(str(folder / str(number)))


def batches_per_second(make: Callable[[Path], Iterator[Any]], folder: Path) -> float:
    batches = make(folder)
    next(batches)  # opens the files, which is not part of drawing
    start = time.process_time()
    for _ in itertools.islice(batches, BATCHES):
        pass
    return BATCHES / (time.process_time() - start)


def main() -> None:
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder)
        rounds = [[batches_per_second(make, folder) for make in CANDIDATES] for _ in range(REPETITIONS)]
    table = Table("", "batches per second", "ratio", title=f"median of {REPETITIONS}, side by side")
    for number, name in enumerate(CANDIDATES.values()):
        speed = statistics.median(each[number] for each in rounds)
        ratio = statistics.median(each[number] / each[-1] for each in rounds)
        table.add_row(name, f"{speed:,.0f}", f"{ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
