"""A data set on the hub is read at one commit, and no further than both splits need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from counted_hub import COMMIT, LATER, ROWS, CountedHub
from test_packing import make_documents, make_tokenizer

from velocitune_core.config import Data, Domain, Source
from velocitune_core.data.packing.domain import pack_source

DATA = Data(path="data/raw", sequence_length=32, min_characters=20, held_out_fraction=0.2, held_out_sequences=8)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> CountedHub:
    hub = CountedHub([each.text for each in make_documents(500)])
    hub.replace(monkeypatch)
    return hub


def pack(folder: Path, max_tokens: int | None) -> Any:
    domain = Domain(source=Source(type="datasets", path="team/web"), max_tokens=max_tokens)
    tokenizer = make_tokenizer(eos_token="<|end|>")
    return pack_source("web", domain, tokenizer, DATA, folder, lambda progress: None)[0]


def test_reading_stops_when_both_splits_are_full(hub: CountedHub, tmp_path: Path) -> None:
    manifest = pack(tmp_path / "web", 32 * 50)
    assert hub.read < 1500  # a few batches of documents more than needed
    assert (manifest.train.sequences, manifest.held_out.sequences) == (50, 8)
    assert not manifest.read_to_end
    assert manifest.revision == COMMIT
    assert hub.opened == [("team/web", COMMIT)]


def test_a_commit_that_is_pushed_meanwhile_is_not_read(hub: CountedHub, tmp_path: Path) -> None:
    hub.pushed_after_a_look = LATER
    assert pack(tmp_path / "web", 32 * 50).revision == COMMIT
    assert hub.opened == [("team/web", COMMIT)]


def test_without_a_limit_all_of_it_is_read(hub: CountedHub, tmp_path: Path) -> None:
    manifest = pack(tmp_path / "web", None)
    assert (hub.read, manifest.documents_read, manifest.read_to_end) == (ROWS, ROWS, True)


def test_a_packed_commit_is_used_again_and_another_is_packed_anew(hub: CountedHub, tmp_path: Path) -> None:
    first = pack(tmp_path / "web", 32 * 50)
    read = hub.read
    assert pack(tmp_path / "web", 32 * 50) == first
    assert hub.read == read
    hub.commit = LATER
    assert pack(tmp_path / "web", 32 * 50).revision == LATER
    assert hub.read > read
