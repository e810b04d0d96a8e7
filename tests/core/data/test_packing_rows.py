"""Cutting a token stream, sampling from it, and appending to a file: golden values, properties, truncated files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.data.packing.rows import Reservoir, RowStream, RowWriter

UINT16 = np.dtype(np.uint16)


def numbered(count: int, start: int = 0) -> np.ndarray:
    """Rows (count, 2), row i of which is [i, 2i]."""
    numbers = np.arange(start, start + count)
    return np.stack([numbers, 2 * numbers], axis=1).astype(UINT16)


def test_a_stream_is_cut_by_hand() -> None:
    stream = RowStream(3, UINT16)
    assert stream.add(np.array([1, 2], UINT16)).shape == (0, 3)
    assert stream.add(np.array([3, 4, 5, 6, 7], UINT16)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert stream.rest.tolist() == [7]


@given(
    st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=30), max_size=10),
    st.integers(1, 9),
    st.integers(0, 10),
)
def test_rows_and_rest_are_the_stream_also_after_a_resume(
    documents: list[list[int]], length: int, resume_at: int
) -> None:
    stream = RowStream(length, UINT16)
    rows: list[int] = []
    for number, document in enumerate(documents):
        if number == resume_at:
            rest, stream = stream.rest, RowStream(length, UINT16)
            stream.rest = rest
        full = stream.add(np.array(document, UINT16))
        assert full.dtype == UINT16 and full.shape[1] == length
        rows += full.reshape(-1).tolist()
    assert rows + stream.rest.tolist() == [token for document in documents for token in document]
    assert len(stream.rest) < length


def test_a_stream_shorter_than_the_reservoir_is_kept_whole() -> None:
    reservoir = Reservoir(5, "code")
    reservoir.offer(numbered(3))
    assert reservoir.offered == 3
    np.testing.assert_array_equal(reservoir.rows(), numbered(3))


def test_the_sample_of_a_name_is_fixed() -> None:
    reservoir = Reservoir(4, "code")
    reservoir.offer(numbered(20))
    assert reservoir.rows()[:, 0].tolist() == [0, 5, 15, 18]


@given(st.integers(1, 6), st.integers(0, 40), st.integers(0, 40))
def test_a_restored_reservoir_continues_identically(size: int, before: int, after: int) -> None:
    whole, first, second = Reservoir(size, "law"), Reservoir(size, "law"), Reservoir(size, "law")
    whole.offer(numbered(before + after))
    first.offer(numbered(before))
    second.restore(first.offered, json.loads(json.dumps(first.random_state())), first.arrays())
    second.offer(numbered(after, start=before))
    assert second.offered == whole.offered == before + after
    if before + after:
        np.testing.assert_array_equal(second.rows(), whole.rows())
        assert second.rows()[:, 0].tolist() == sorted(set(second.rows()[:, 0].tolist()))  # distinct, in stream order
        assert len(second.rows()) == min(size, before + after)


def test_every_row_is_sampled_equally_often() -> None:
    samples, size, stream = 2000, 3, numbered(12)
    counts: Counter[int] = Counter()
    for number in range(samples):
        reservoir = Reservoir(size, f"domain {number}")
        reservoir.offer(stream)
        counts.update(reservoir.rows()[:, 0].tolist())
    expected = samples * size / len(stream)
    deviation = np.sqrt(samples * (size / len(stream)) * (1 - size / len(stream)))
    assert all(abs(counts[row] - expected) < 5 * deviation for row in range(len(stream)))


def test_a_reservoir_keeps_copies() -> None:
    reservoir, rows = Reservoir(2, "code"), numbered(2)
    reservoir.offer(rows)
    rows[:] = 0
    np.testing.assert_array_equal(reservoir.rows(), numbered(2))


def test_appended_rows_are_an_npy_file(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "train.npy", 2, UINT16)
    writer.append(numbered(3))
    writer.append(numbered(0))
    writer.append(numbered(4, start=3))
    writer.finish()
    writer.close()
    rows = np.load(tmp_path / "train.npy", allow_pickle=False)
    assert rows.dtype == UINT16 and writer.sequences == 7
    np.testing.assert_array_equal(rows, numbered(7))


@pytest.mark.parametrize("lost_bytes", [0, 1, 12])
def test_a_writer_continues_after_the_saved_rows(tmp_path: Path, lost_bytes: int) -> None:
    path, whole = tmp_path / "train.npy", tmp_path / "whole.npy"
    writer = RowWriter(path, 2, UINT16)
    writer.append(numbered(2))
    writer.sync()
    saved = writer.sequences
    writer.append(numbered(3, start=90))  # not counted by any saved state
    writer.sync()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - lost_bytes)
    writer = RowWriter(path, 2, UINT16, saved)
    writer.append(numbered(998, start=2))  # more digits in the header
    writer.finish()
    writer.close()
    np.save(whole, numbered(1000))
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), np.load(whole))


def test_a_new_writer_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "train.npy"
    path.write_bytes(b"older and longer than a header" * 99)
    writer = RowWriter(path, 2, UINT16)
    writer.append(numbered(1))
    writer.finish()
    writer.close()
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), numbered(1))
