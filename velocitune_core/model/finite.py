"""Whether the stored weights of a folder are finite, read in pieces; needs neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from velocitune_core.model.headers import StoredTensor, is_made_anew, shown

_PIECE_BYTES = 1 << 20  # that fits a processor's cache: each is read, masked and searched in one go
_THREADS = 2  # reading and searching overlap

# dtype: the unsigned integer of its width, and the bits of its exponent, which are all 1 in infinities and NaNs only
_EXPONENTS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


def not_finite(tensors: Iterable[StoredTensor]) -> list[str]:
    """Return the names of tensors with a value that is NaN or infinite.

    Dtypes of quantised weights are skipped, and masks: -1e9 is infinite in half precision.
    """
    looked_at = [each for each in tensors if each.dtype in _EXPONENTS and not is_made_anew(each.name)]
    with ThreadPoolExecutor(_THREADS) as threads:
        return [each.name for each, bad in zip(looked_at, threads.map(_has_bad, looked_at), strict=True) if bad]


def finite_problems(path: str, tensors: Iterable[StoredTensor]) -> list[str]:
    """Return why a folder whose weights are not finite cannot be trained, as one line; empty if they are."""
    if not (bad := not_finite(tensors)):
        return []
    return [
        f"model.path: {path} has NaN or infinite weights in {len(bad)} tensors ({shown(bad)}), so no loss of it is "
        "finite; download it again, or take a checkpoint of before its training diverged"
    ]


def _has_bad(tensor: StoredTensor) -> bool:
    integer, exponent = _EXPONENTS[tensor.dtype]
    mask = np.array(exponent, dtype=integer)
    buffer = bytearray(_PIECE_BYTES)
    piece = np.frombuffer(buffer, dtype=integer)
    with tensor.file.open("rb", buffering=0) as stream:
        stream.seek(tensor.start)
        left = tensor.stop - tensor.start
        while left > 0:
            read = stream.readinto(memoryview(buffer)[: min(left, _PIECE_BYTES)])
            if not read:
                return False  # cut off: what its header says of that is reported
            part = piece[: read // piece.itemsize]
            np.bitwise_and(part, mask, out=part)
            if part.size and part.max() == mask:
                return True
            left -= read
    return False
