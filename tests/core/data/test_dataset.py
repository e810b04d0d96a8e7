"""Sequences by (domain, index), and the errors for files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velocitune_core.config import ConfigError
from velocitune_core.contracts import DomainFiles
from velocitune_core.data.dataset import PackedDomains, load_split

LENGTH = 4
SIZES = {"code": 5, "law": 3}  # training sequences


def sequences(number: int, count: int) -> np.ndarray:
    """Row i of domain `number` starts with 1000 · number + 10 · i."""
    return (1000 * number + 10 * np.arange(count)[:, None] + np.arange(LENGTH)).astype(np.uint16)


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, DomainFiles]:
    files = {}
    for number, (name, count) in enumerate(SIZES.items()):
        np.save(tmp_path / f"{name}-train.npy", sequences(number, count))
        np.save(tmp_path / f"{name}-held_out.npy", sequences(number + 10, 2))
        files[name] = DomainFiles(
            train=str(tmp_path / f"{name}-train.npy"),
            held_out=str(tmp_path / f"{name}-held_out.npy"),
            train_sha256="",
            held_out_sha256="",
        )
    return files


def test_sequences_by_hand(domains: dict[str, DomainFiles]) -> None:
    data = PackedDomains(domains)
    assert (data.sizes, data.sequence_length) == (SIZES, LENGTH)
    batch = data.read(np.array([1, 0, 1]), np.array([2, 4, 0]))
    assert batch.dtype == torch.int64
    assert batch.tolist() == [[1020, 1021, 1022, 1023], [40, 41, 42, 43], [1000, 1001, 1002, 1003]]
    assert list(data.held_out) == ["code", "law"]
    np.testing.assert_array_equal(data.held_out["law"], sequences(11, 2))


def test_domains_are_numbered_in_the_given_order(domains: dict[str, DomainFiles]) -> None:
    data = PackedDomains(dict(reversed(domains.items())))
    assert list(data.sizes) == ["law", "code"]
    assert data.read(np.array([0]), np.array([0]))[0, 0] == 1000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=20))
def test_any_batch_is_read_row_by_row(domains: dict[str, DomainFiles], pairs: list[tuple[int, int]]) -> None:
    data = PackedDomains(domains)
    numbers, indices = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    batch = data.read(numbers, indices)
    assert batch.shape == (len(pairs), LENGTH)
    for row, (number, index) in zip(batch.numpy(), pairs, strict=True):
        np.testing.assert_array_equal(row, sequences(number, 9)[index])


def test_a_batch_is_a_copy(domains: dict[str, DomainFiles]) -> None:
    data = PackedDomains(domains)
    data.read(np.array([0]), np.array([0]))[:] = 7
    assert data.read(np.array([0]), np.array([0])).tolist() == [[0, 1, 2, 3]]
    with pytest.raises(ValueError, match="read-only"):
        data.held_out["code"][0, 0] = 7


def test_large_token_ids_keep_their_values(tmp_path: Path, domains: dict[str, DomainFiles]) -> None:
    rows = np.full((1, LENGTH), 2**32 - 1, dtype=np.uint32)
    np.save(tmp_path / "code-train.npy", rows)
    assert PackedDomains(domains).read(np.array([0]), np.array([0])).tolist() == [[2**32 - 1] * LENGTH]


def test_an_index_out_of_range_raises(domains: dict[str, DomainFiles]) -> None:
    data = PackedDomains(domains)
    with pytest.raises(IndexError):
        data.read(np.array([1]), np.array([3]))


def test_all_missing_files_are_named(domains: dict[str, DomainFiles]) -> None:
    Path(domains["code"].held_out).unlink()
    Path(domains["law"].train).unlink()
    with pytest.raises(ConfigError, match="run the stage `prepare`") as caught:
        PackedDomains(domains)
    message = str(caught.value)
    assert domains["code"].held_out in message and domains["law"].train in message
    assert domains["code"].train not in message


def test_a_truncated_file_raises(domains: dict[str, DomainFiles]) -> None:
    path = Path(domains["code"].train)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="mmap"):
        load_split(path)
    path.write_bytes(b"")
    with pytest.raises((ValueError, EOFError)):
        load_split(path)
