"""Every path through the engine trains as it did: losses, gradient norms and domain weights against stored curves.

A change that is meant to move them runs `make golden` and commits the diff of `curves/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from curves import ENGINE_PATHS, STEPS, curve_of, read_curve, worst_difference


@pytest.mark.parametrize("name", ENGINE_PATHS)
def test_the_curve_is_the_stored_one(name: str, tiny_inputs: Path, tmp_path: Path) -> None:
    path = ENGINE_PATHS[name]
    ours, stored = curve_of(path, tiny_inputs, tmp_path / name), read_curve(name)
    assert [*stored["loss"]] == [str(step) for step in range(1, STEPS + 1)]
    for kind, numbers in stored.items():
        assert_close(kind, ours[kind], numbers, path.tolerance)
    assert ours.keys() == stored.keys()
    if (
        "bfloat16" in name
    ):  # the tolerance covers float32 too; the first loss, before rounding adds up, tells them apart
        first, of_float32 = ours["loss"]["1"], read_curve(name.replace("bfloat16", "float32"))["loss"]["1"]
        assert abs(first - stored["loss"]["1"]) < abs(first - of_float32)


def assert_close(kind: str, ours: dict[str, Any], stored: dict[str, Any], tolerance: float) -> None:
    assert ours.keys() == stored.keys(), kind
    moved = {step: worst_difference(ours[step], stored[step]) for step in stored}
    worst = max(moved, key=lambda step: moved[step])
    assert moved[worst] <= tolerance, f"{kind} of step {worst}: {ours[worst]}, stored {stored[worst]}"


def test_paths_in_float32_differ_by_rounding_alone() -> None:
    """Accumulation, a second rank and recomputed activations sum the same numbers in another order."""
    reference = read_curve("one-rank-float32")
    for name in ("two-ranks-float32", "accumulation", "activation-checkpointing"):
        assert worst_difference(read_curve(name), reference) < 1e-4, name


@pytest.mark.parametrize("ranks", ["one-rank", "two-ranks"])
def test_bfloat16_follows_float32(ranks: str) -> None:
    losses = [read_curve(f"{ranks}-{precision}")["loss"] for precision in ("bfloat16", "float32")]
    assert 1e-5 < worst_difference(*losses) < 1e-3
