"""Checkpoints of two ranks whose file systems show other folders, as caches of NFS may, or that one cannot complete."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from forked import ForkedRun

from velocitune_core.checkpoint.store import load_latest, save_checkpoint

LOADER = """
import os, sys
from pathlib import Path
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.parallel.ranks import join_ranks, leave_ranks

ranks = join_ranks()
for case in sorted(Path(sys.argv[1]).iterdir()):
    checkpoint, problems = load_latest(case / f"of_rank_{ranks.rank}", ranks)
    step = checkpoint and checkpoint.step
    os.write(1, f"{case.name}: {step} {len(problems)} {ranks.count_true(True)}\\n".encode())  # at once
leave_ranks()
"""
CASES: list[tuple[list[int], list[int], str]] = [  # the steps that each rank sees, and what is loaded
    ([10, 20], [10, 20], "20 0"),
    ([10, 20], [10], "10 1"),  # the newest does not exist for rank 1
    ([10], [10, 20], "10 0"),  # rank 1 still sees one that was deleted, or not yet renamed for rank 0
    ([10, 20], [], "None 2"),
    ([], [10], "None 0"),
]


def test_two_ranks_that_see_other_checkpoints_load_the_same(tmp_path: Path) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path / "all", step, {"weight": torch.full((8,), float(step))}, {}, keep=2)
    for number, (*seen, _) in enumerate(CASES):
        for rank, steps in enumerate(seen):
            folder = tmp_path / "cases" / str(number) / f"of_rank_{rank}"
            folder.mkdir(parents=True)
            for step in steps:
                shutil.copytree(tmp_path / "all" / f"step-{step:08d}", folder / f"step-{step:08d}")
    (tmp_path / "loader.py").write_text(LOADER)
    run = ForkedRun([str(tmp_path / "cases")], 2, {"PYTHONPATH": str(tmp_path)}, program="loader")
    _, said = run.communicate(40)  # gloo itself waits for hours
    assert run.returncode == 0, said
    expected = [f"{number}: {loaded} [2]" for number, (*_, loaded) in enumerate(CASES)]
    assert sorted(line for line in said.splitlines() if line[:1].isdigit()) == sorted(expected * 2)


SAVER = """
import os, sys
from pathlib import Path
import torch
from velocitune_core.checkpoint.store import SaveError, save_checkpoint
from velocitune_core.parallel.ranks import join_ranks, leave_ranks

ranks = join_ranks()
for step in (4, 8):
    try:
        said = save_checkpoint(Path(sys.argv[1]), step, {"weight": torch.zeros(8)}, {}, keep=2, ranks=ranks).name
    except SaveError as error:
        said = str(error)
    os.write(1, f"rank {ranks.rank}: {said}\\n".encode())  # at once
leave_ranks()
"""


def test_a_checkpoint_that_the_main_rank_cannot_complete_is_given_up_by_both(tmp_path: Path) -> None:
    """Every part is written; in the way of the last step, giving the folder its name, is a file."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step-00000004").write_text("in the way")
    (tmp_path / "saver.py").write_text(SAVER)
    run = ForkedRun([str(folder)], 2, {"PYTHONPATH": str(tmp_path)}, program="saver")
    _, said = run.communicate(40)  # gloo itself waits for hours
    assert run.returncode == 0, said
    for rank in (0, 1):
        first, second = (line for line in said.splitlines() if line.startswith(f"rank {rank}: "))
        assert "step-00000004: cannot be saved: rank 0: [Errno 20] Not a directory" in first
        assert second == f"rank {rank}: step-00000008"
    assert not list(folder.glob(".*"))
    latest, _ = load_latest(folder)
    assert latest is not None and latest.step == 8


COPIER = """
import os, sys
from pathlib import Path
from unittest.mock import patch
import torch
from velocitune_core.checkpoint.background import CheckpointWriter
from velocitune_core.checkpoint.store import SaveError
from velocitune_core.parallel.ranks import join_ranks, leave_ranks

ranks = join_ranks()
writer = CheckpointWriter(Path(sys.argv[1]), keep=2, ranks=ranks)

def stage(state):
    if ranks.rank == 1:
        raise MemoryError("no memory for a copy")
    return state

def saved(step):
    writer.start(step, {"weight": torch.zeros(8)}, {})
    try:
        return writer.outcome().path.name
    except SaveError as error:
        return str(error)

with patch.object(writer._stager, "stage", stage):
    first = saved(4)
os.write(1, f"rank {ranks.rank}: {first}; {saved(8)}\\n".encode())  # at once
leave_ranks()
"""


def test_a_checkpoint_that_one_rank_has_no_memory_to_copy_is_given_up_by_both(tmp_path: Path) -> None:
    (tmp_path / "copier.py").write_text(COPIER)
    run = ForkedRun([str(tmp_path / "checkpoints")], 2, {"PYTHONPATH": str(tmp_path)}, program="copier")
    _, said = run.communicate(40)  # gloo itself waits for hours
    assert run.returncode == 0, said
    for rank in (0, 1):
        (line,) = (line for line in said.splitlines() if line.startswith(f"rank {rank}: "))
        assert "step-00000004: cannot be saved: rank 1: no memory for a copy" in line
        assert line.endswith("; step-00000008")
