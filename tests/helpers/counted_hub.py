"""A data set on the hub that counts the rows read, in place of the hub's client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

COMMIT, LATER = "0" * 40, "1" * 40
ROWS = 5000


class CountedHub:
    """A streamed data set of ROWS documents.

    Args:
        texts: of the documents, over and over, each under its number.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.read, self.commit = 0, COMMIT
        self.pushed_after_a_look: str | None = None  # the commit that replaces it once somebody has looked
        self.opened: list[tuple[str, str]] = []

    def replace(self, patch: pytest.MonkeyPatch) -> None:
        """Take the place of the hub's client."""
        patch.setattr("datasets.load_dataset", self._load_dataset)
        patch.setattr("huggingface_hub.HfApi.dataset_info", lambda api, path, revision=None: self._info())

    def _info(self) -> SimpleNamespace:
        found = SimpleNamespace(sha=self.commit)
        self.commit = self.pushed_after_a_look or self.commit
        return found

    def _rows(self) -> Iterator[dict[str, str]]:
        for number in range(ROWS):
            self.read += 1
            yield {"text": f"{number} {self._texts[number % len(self._texts)]}"}

    def _load_dataset(self, path: str, **options: Any) -> datasets.IterableDataset:
        self.opened.append((path, options["revision"]))
        return datasets.IterableDataset.from_generator(self._rows)
