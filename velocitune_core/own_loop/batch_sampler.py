"""Batches of a map-style data set, drawn by group weights: lists of indices for any loader.

Which example comes when is a function of seed, step and the history of the weights. It does not depend on ranks,
loader workers or the way in which a step is cut into micro-batches.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.mixture import DomainSampler, MixtureError
from velocitune_core.own_loop.checks import part_size, positive_number, whole_number
from velocitune_core.own_loop.group_labels import Groups, grouped
from velocitune_core.own_loop.weight_history import WeightHistory, normalised

REMEMBERED_STEPS = 1024  # back from the last one drawn, whose state can still be saved


def prefetch_lag(num_workers: int, prefetch_factor: int | None = None, *, accelerate: bool = False) -> int:
    """Return how many batches of a rank a loader draws before the rank receives them.

    Weights set after n batches act from batch n + lag + 1 on. 0 for torch's DataLoader without workers, and for every
    loader at the end of a pass (`steps` of MixtureBatchSampler).

    Args:
        num_workers, prefetch_factor: of torch's DataLoader or torchdata's StatefulDataLoader; None is theirs, 2.
        accelerate: whether the loader was prepared by `accelerate`, which reads one batch ahead.
    """
    return num_workers * (2 if prefetch_factor is None else prefetch_factor) + int(accelerate)


class MixtureBatchSampler:
    """Batch sampler whose batches hold groups in proportion to their weights.

    Give it to a loader as `batch_sampler`. Within a group, examples come without replacement until all have come,
    then again in a new order. A global batch is drawn first and then cut into parts of `micro_batch_size`, which go to
    the ranks in turn: so one rank, several, and any number of micro-batches get the same examples in every step.

    The sampler runs as far ahead as its loader does (`prefetch_lag`). With `steps`, iteration ends after that many
    steps (a pass) and goes on with the next call of `iter`: no batch is drawn before the weights of its pass are set,
    so the lag is 0 with any number of workers, at the price of waiting for the first batch of each pass.

    Args:
        groups: the label of every example, (N,); or several data sets by name, or their lengths, which are indexed one
            after the other as in torch's ConcatDataset. Labels are turned into strings.
        weights: by group, relative: non-negative and not all zero.
        batch_size: examples per step, over all ranks and micro-batches.
        seed: of all orders.
        steps: length of a pass; None: endless.
        micro_batch_size: examples per list of indices, which `batch_size` of the sampler then is, as loaders expect;
            None: the rank's part of a step.
        rank, world_size: which parts are returned. Leave them out where `accelerate` shards the loader, which takes
            parts in the same turn.
        max_epochs: a group that was seen this often has weight 0 from then on; the others take its share.

    Raises MixtureError for empty groups, weights that are no distribution over the groups, numbers of another kind (a
    fraction where an integer is needed, such as `steps=len(labels) / 32`), or sizes that do not divide `batch_size`;
    and while drawing, once `max_epochs` leaves too few examples for a batch.
    """

    drop_last = True  # every pass has whole steps; `accelerate` reads this, and completes no batch by repetition

    def __init__(
        self,
        groups: Groups,
        weights: Mapping[Any, float],
        batch_size: int,
        seed: int = 0,
        *,
        steps: int | None = None,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        max_epochs: float | None = None,
    ) -> None:
        self._sizes, self._order = grouped(groups)
        counts = np.array(list(self._sizes.values()), dtype=np.int64)  # (K,)
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]])  # (K,) of each group in `_order`
        self._fingerprint = 0 if self._order is None else zlib.crc32(self._order.tobytes())  # which example is where
        if steps is not None:
            steps = whole_number("steps", steps, MixtureError, least=1, fix="round it, or give None: an endless pass")
        self._global_batch_size = whole_number("batch_size", batch_size, MixtureError, least=1)
        self._world_size = whole_number("world_size", world_size, MixtureError, least=1)
        self._rank, self._steps = whole_number("rank", rank, MixtureError, least=None), steps
        if not 0 <= self._rank < self._world_size:
            raise MixtureError(f"rank {rank} must be in [0, world_size {world_size}); give each process its own")
        self.batch_size = part_size(self._global_batch_size, self._world_size, micro_batch_size)
        self._max_epochs = None if max_epochs is None else positive_number("max_epochs", max_epochs, MixtureError)
        seed = whole_number("seed", seed, MixtureError, least=None)
        self._sampler = DomainSampler(
            self._sizes, seed=seed, batch_size=self._global_batch_size, max_epochs=self._max_epochs
        )
        self._history = WeightHistory([(0, normalised(weights, self._sizes))])
        self._before: deque[NDArray[np.float64]] = deque(maxlen=REMEMBERED_STEPS)  # drawn, credit: (2, K) per step
        self._parts: deque[list[int]] = deque()  # of the last step drawn, still to be returned
        self._step = 0  # steps drawn
        self._in_pass = False  # a pass has begun, and its end was not returned

    @property
    def groups(self) -> list[str]:
        """Names of the groups, K of them."""
        return self._sampler.names

    @property
    def examples(self) -> dict[str, int]:
        """Examples of the data by group."""
        return dict(self._sizes)

    @property
    def drawn_steps(self) -> int:
        """Steps drawn so far: those that the loader has returned, and those that it holds."""
        return self._step

    @property
    def drawn(self) -> dict[str, int]:
        """Examples drawn so far by group."""
        return self._named(self._sampler.drawn)

    @property
    def weights(self) -> dict[str, float]:
        """Weights by group of the next step that is drawn; they sum to 1."""
        return self._weights_at(self._step)

    def set_weights(self, weights: Mapping[Any, float], *, from_step: int | None = None) -> int:
        """Draw with these weights from a step on, and return that step.

        Args:
            weights: by group, relative.
            from_step: number of steps before the first one that is drawn with them. None: the next step to be drawn,
                which lies `prefetch_lag` batches behind the last one that the loop has received; changes that were
                set for later steps are dropped. Give steps done + a fixed lag, and the draws are the same with any
                number of workers.

        Raises MixtureError if that step has been drawn already, or the weights are no distribution over the groups.
        """
        first = self._step if from_step is None else whole_number("from_step", from_step, MixtureError)
        if first < self._step:
            raise MixtureError(
                f"from_step {first} has been drawn already: the loader has drawn {self._step} steps; give at least "
                f"{self._step}, or end passes with `steps`, where nothing is drawn ahead"
            )
        self._history.change(first, normalised(weights, self._sizes), is_last=from_step is None)
        return first

    def __iter__(self) -> Iterator[list[int]]:
        """Return the lists of indices up to the end of the pass, from where the sampler stands."""
        end = None
        if self._steps is not None:
            end = (-(-self._step // self._steps) if self._in_pass else self._step // self._steps + 1) * self._steps
        self._in_pass = True
        while self._parts or self._step != end:
            if not self._parts:
                self._parts.extend(self._draw())
            yield self._parts.popleft()
        self._in_pass = False

    def __len__(self) -> int:
        """Return the lists of indices per pass. Raises TypeError for an endless pass."""
        if self._steps is None:
            raise TypeError("an endless MixtureBatchSampler has no length; give `steps`")
        return self._steps * self._parts_per_step

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the JSON-ready state: a few numbers per group, and the changes of the weights from that step on.

        Without `step`, the changes follow the sampler until the state is written: a state that a loader has kept
        since it drew a batch holds the weights set in the meantime, too. Take a `copy.deepcopy` of a state that you
        keep in memory, to go back to.

        At the end of a pass, `step` belongs to that pass until the weights of the next one are set: the iteration that
        follows a resume ends at once, and the loop goes on with what it does after a pass.

        Args:
            step: steps that the loop has done. None: all that was drawn, which is more if the loader has drawn ahead.

        Raises MixtureError for a step that was not drawn yet, or lies more than REMEMBERED_STEPS back.
        """
        returned, in_pass, given = 0, self._in_pass, step
        if step is not None:
            step = whole_number("step", step, MixtureError)
        else:
            step = self._step
            if self._parts:  # within a step: its state before, and how many parts of it to skip
                step, returned = step - 1, self._parts_per_step - len(self._parts)
        changes = self._history.changes_from(step, shared=given is None)
        if given is not None:
            in_pass = step == self._step and step not in changes
            in_pass = in_pass or (self._steps is not None and step % self._steps > 0)
        return {
            "sampler": self._sampler_before(step),
            "examples": self.examples,
            "labels": self._fingerprint,
            "weights": self._weights_at(step),
            "history": changes,
            "returned": returned,
            "parts_per_step": self._parts_per_step,
            "in_pass": in_pass,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state: the next list of indices is the one that would have followed.

        Between steps, `world_size` and `micro_batch_size` may differ from those of the saved run.

        Raises MixtureError if the state is of other data, has another seed or batch size, or is none of a sampler. A
        state that is refused changes nothing.
        """
        before = self._sampler.state_dict()
        try:
            self._check_state(state)
            step, in_pass = int(state["sampler"]["step"]), bool(state["in_pass"])
            later = {int(at): weights for at, weights in dict(state["history"]).items() if int(at) >= step}
            if step not in later:
                later[step - in_pass] = state["weights"]
            history = WeightHistory((at, {name: later[at][name] for name in self._sizes}) for at in sorted(later))
            returned = int(state["returned"])
            self._sampler.load_state_dict(state["sampler"])
        except MixtureError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._sampler.load_state_dict(before)
            raise MixtureError(
                f"saved state cannot be read ({type(error).__name__}: {error}); give what state_dict() returned"
            ) from None
        self._step, self._in_pass, self._history = step, in_pass, history
        self._before.clear()
        self._parts.clear()
        if returned:
            self._parts.extend(self._draw()[returned:])

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse a state of other data, or one within a step that this layout cuts in another way."""
        if (state["examples"], state["labels"]) != (self.examples, self._fingerprint):
            raise MixtureError(
                f"saved state is of data with examples {state['examples']}, this data has {self.examples}"
                f"{'' if state['examples'] != self.examples else ' in another order'}; start a new run"
            )
        if state["returned"] and state["parts_per_step"] != self._parts_per_step:
            raise MixtureError(
                f"saved state lies within a step of {state['parts_per_step']} micro-batches, this run's steps have "
                f"{self._parts_per_step}; give the same micro_batch_size and world_size, or save between steps"
            )

    @property
    def _parts_per_step(self) -> int:
        """Lists of indices that this rank gets of each step."""
        return self._global_batch_size // (self.batch_size * self._world_size)

    def _draw(self) -> list[list[int]]:
        """Draw the next step and return this rank's parts of it."""
        now = self._sampler.state_dict()
        try:
            groups, indices = self._sampler.next_batch(self._history.at(self._step))
        except MixtureError:
            raise MixtureError(
                f"max_epochs {self._max_epochs} leaves too few examples for a batch of {self._global_batch_size} at "
                f"step {self._step} (seen that often: {self._sampler.exhausted}); give a larger max_epochs, end the "
                "training before this step, or give weight to groups with examples left"
            ) from None
        self._before.append(np.array([list(now["drawn"].values()), list(now["credit"].values())]))
        self._step += 1
        self._history.forget_before(self._step - len(self._before))
        examples = self._starts[groups] + indices
        if self._order is not None:
            examples = self._order[examples]
        parts = examples.reshape(-1, self.batch_size)
        return parts[self._rank :: self._world_size].tolist()

    def _sampler_before(self, step: int) -> dict[str, Any]:
        """Return the state of the sampler before it drew a step."""
        now, back = self._sampler.state_dict(), self._step - step
        if not 0 <= back <= len(self._before):
            raise MixtureError(
                f"state after step {step} is not there; the sampler has drawn {self._step} steps and keeps the "
                f"last {len(self._before)}"
            )
        if not back:
            return now
        drawn, credit = self._before[-back]
        return {**now, "step": step, "drawn": self._named(drawn.astype(int)), "credit": self._named(credit)}

    def _weights_at(self, step: int) -> dict[str, float]:
        """Return the weights by group with which a step is drawn."""
        return self._named(self._history.at(step))

    def _named(self, values: NDArray[Any]) -> dict[str, Any]:
        """Return values (K,) by group."""
        return dict(zip(self.groups, values.tolist(), strict=True))
