"""Write checkpoints during training: the state is copied at a step boundary, and a thread writes the copy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from velocitune_core.checkpoint.store import save_checkpoint
from velocitune_core.parallel.ranks import Ranks


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on the disk."""

    step: int
    path: Path
    seconds: float  # from the copy to the rename; most of it overlaps with training


class CheckpointWriter:
    """Write one checkpoint at a time.

    Takes memory for a copy of the state, which is reused for the next checkpoint, and the time of copying it.

    `corrupt` lists checkpoints that the next save may delete whatever their step.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks, keep_through_step: int | None = None) -> None:
        self._folder, self._ranks = folder, ranks
        self._kept: dict[str, Any] = {"keep": keep, "keep_through_step": keep_through_step}
        # On a GPU the copy lies in pinned memory, and is kept for the next one: 30 times as fast.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=ranks.device.type == "cuda")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Saved] | None = None
        self.corrupt: list[Path] = []

    @property
    def busy(self) -> bool:
        """Whether a checkpoint was started and its outcome not yet taken."""
        return self._pending is not None

    @property
    def done(self) -> bool:
        """Whether the checkpoint that was started has finished, so that `outcome` does not wait."""
        return self._pending is not None and self._pending.done()

    def start(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Copy tensors and state, and start to write them; both may change once this returns."""
        assert self._pending is None, "take the outcome of the one before first"
        begun = time.perf_counter()
        copy, problem = self._copy(tensors)
        frozen = deepcopy(dict(state))  # it refers to live objects: the timer's seconds, lists of a strategy

        def write() -> Saved:
            path = save_checkpoint(
                self._folder,
                step,
                copy,
                frozen,
                **self._kept,
                corrupt=self.corrupt,
                problem=problem,
                ranks=self._ranks,
            )
            return Saved(step, path, time.perf_counter() - begun)

        self._pending = self._thread.submit(write)

    def _copy(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Exception | None]:
        """Return a copy, or why there is none: a rank without the memory for it must say so to the others."""
        try:
            return self._stager.stage(dict(tensors)), None  # type: ignore[return-value]
        except Exception as error:
            return {}, error

    def close(self) -> None:
        """Wait until nothing is being written, whatever becomes of it; no checkpoint can be started after."""
        self._thread.shutdown()
        self._pending = None

    def outcome(self) -> Saved:
        """Wait for the checkpoint that was started and return it. Raises SaveError if it could not be written."""
        assert self._pending is not None, "nothing was started"
        pending, self._pending = self._pending, None
        return pending.result()
