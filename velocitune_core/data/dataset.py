"""Token sequences of packed domains by (domain, index), read from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from velocitune_core.config import ConfigError
from velocitune_core.contracts import DomainFiles
from velocitune_core.data.packing.rows import Rows


def load_split(path: Path) -> Rows:
    """Return a packed split, memory-mapped and read-only, of shape (sequences, sequence_length).

    Raises OSError for a missing file, ValueError for one that is not an .npy matrix or would need unpickling.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


class PackedDomains:
    """The training and held-out sequences of all domains, memory-mapped: resident memory is independent of their size.

    Raises ConfigError naming every missing file.
    """

    def __init__(self, domains: Mapping[str, DomainFiles]) -> None:
        files = [file for each in domains.values() for file in (each.train, each.held_out)]
        if missing := [file for file in files if not Path(file).is_file()]:
            raise ConfigError(f"{missing}: no such packed files; run the stage `prepare`")
        # Plain arrays over the mapped memory: indexing np.memmap costs as much again as the rest of `read`.
        self._train = [np.asarray(load_split(Path(files.train))) for files in domains.values()]
        self.held_out = {name: load_split(Path(files.held_out)) for name, files in domains.items()}
        self.sizes = {name: len(rows) for name, rows in zip(domains, self._train, strict=True)}  # training sequences
        self.sequence_length = self._train[0].shape[1]

    def read(self, domains: NDArray[np.int64], indices: NDArray[np.int64]) -> Tensor:
        """Return the training sequences at positions (n,) of domains and (n,) of rows: int64 (n, sequence_length)."""
        sequences = np.empty((len(domains), self.sequence_length), dtype=np.int64)
        for row, (domain, index) in enumerate(zip(domains.tolist(), indices.tolist(), strict=True)):
            sequences[row] = self._train[domain][index]
        return torch.from_numpy(sequences)
