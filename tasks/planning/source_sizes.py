"""How much text a source holds, in bytes, from its files and without reading all of them."""

from __future__ import annotations

import zlib
from pathlib import Path

from velocitune_core.config import Source
from velocitune_core.data.source_files import find_files

_SAMPLE_BYTES = 1 << 20  # of a compressed file, whose ratio is taken for the whole file


def text_bytes(source: Source, root: Path) -> int:
    """Return an estimate of the bytes of a source, uncompressed; 0 if its files are not there, or cannot be read.

    Of parquet it is the column of the text, of `datasets` all columns. Rows of JSON count with their other fields.
    """
    if source.type == "datasets":
        folder = root / source.path
        split = folder / source.split
        return sum(path.stat().st_size for path in (split if split.is_dir() else folder).glob("*.arrow"))
    files = find_files(source, root).files
    if source.type == "parquet":
        return sum(_column_bytes(path, source.text_field) for path in files)
    return sum(_plain_bytes(path) for path in files)


def _column_bytes(path: Path, column: str) -> int:
    from pyarrow import ArrowException, parquet

    try:
        meta = parquet.read_metadata(path)
    except (OSError, ArrowException):  # reported when it is read
        return 0
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)


def _plain_bytes(path: Path) -> int:
    size, suffix = path.stat().st_size, path.suffix.lower()
    if suffix not in {".gz", ".zst", ".zstd"}:
        return size
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    return int(size * _decompressed(sample, suffix) / len(sample)) if sample else 0


def _decompressed(sample: bytes, suffix: str) -> int:
    """Return the bytes that the beginning of a file holds; 0 if it is corrupt."""
    import zstandard

    try:
        if suffix == ".gz":
            return len(zlib.decompressobj(wbits=31).decompress(sample))
        return len(zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj().decompress(sample))
    except (zlib.error, zstandard.ZstdError):
        return 0
