"""Checkpoints seen by two ranks whose file systems do not show the same folders, as caches of NFS may not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from trainings import ENVIRONMENT, TORCHRUN

from velocitune_core.checkpoint.store import save_checkpoint

LOADER = """
import os, sys
from pathlib import Path
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.parallel.ranks import join_ranks, leave_ranks

ranks = join_ranks()
checkpoint, corrupt = load_latest(Path(sys.argv[1 + ranks.rank]), ranks)
os.write(1, f"{checkpoint and checkpoint.step} {len(corrupt)} {ranks.count_true(True)}\\n".encode())  # at once
leave_ranks()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seen", "loaded"),
    [
        (([10, 20], [10, 20]), "20 0"),
        (([10, 20], [10]), "10 1"),  # the newest does not exist for rank 1
        (([10], [10, 20]), "10 0"),  # rank 1 still sees one that was deleted, or not yet renamed for rank 0
        (([10, 20], []), "None 2"),
        (([], [10]), "None 0"),
    ],
)
def test_two_ranks_that_see_other_checkpoints_load_the_same(
    tmp_path: Path, seen: tuple[list[int], list[int]], loaded: str
) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path / "all", step, {"weight": torch.full((8,), float(step))}, {}, keep=2)
    folders = [tmp_path / "of_rank_0", tmp_path / "of_rank_1"]
    for folder, steps in zip(folders, seen, strict=True):
        folder.mkdir()
        for step in steps:
            shutil.copytree(tmp_path / "all" / f"step-{step:08d}", folder / f"step-{step:08d}")
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    command = [*TORCHRUN, str(script), *map(str, folders)]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{loaded} [2]"] * 2
