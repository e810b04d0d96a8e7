"""Token sequences by (domain, index), read from the packed files as they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from velocitune_core.config import ConfigError
from velocitune_core.contracts import DomainFiles
from velocitune_core.data.packed_files import load_split


class PackedDomains:
    """The memory-mapped training and held-out files of all domains; resident memory does not grow with them.

    Raises ConfigError naming every file that is missing.
    """

    def __init__(self, domains: Mapping[str, DomainFiles]) -> None:
        files = [file for each in domains.values() for file in (each.train, each.held_out)]
        if missing := [file for file in files if not Path(file).is_file()]:
            raise ConfigError(f"{missing}: no such packed files; run the stage `prepare`")
        # As plain arrays: a row of numpy's memmap class costs as much again as all the rest of reading it.
        self._train = [np.asarray(load_split(Path(files.train))) for files in domains.values()]
        self.held_out = {name: load_split(Path(files.held_out)) for name, files in domains.items()}
        self.sizes = {name: len(rows) for name, rows in zip(domains, self._train, strict=True)}
        self.sequence_length = self._train[0].shape[1]

    def read(self, domains: NDArray[np.int64], indices: NDArray[np.int64]) -> Tensor:
        """(n,) and (n,) → (n, sequence_length) of token ids."""
        sequences = np.empty((len(domains), self.sequence_length), dtype=np.int64)
        for row, (domain, index) in enumerate(zip(domains.tolist(), indices.tolist(), strict=True)):
            sequences[row] = self._train[domain][index]
        return torch.from_numpy(sequences)
