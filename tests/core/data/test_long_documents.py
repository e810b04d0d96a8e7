"""Memory does not grow with the longest document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from forked import ForkedRun
from packing_memory import WORDS

MOST_MB = 200  # a text of 10 MB that is tokenised whole takes 650


def grown_by(folder: Path, megabytes: int) -> int:
    """The MB by which packing a text of that size beside twenty short ones grows a process."""
    (folder / "texts").mkdir(parents=True)
    line = " ".join(WORDS)
    with (folder / "texts/long.txt").open("w") as file:
        file.writelines(f"{line}\n" for _ in range(megabytes * 1_000_000 // len(line)))
    for number, word in enumerate(WORDS[:20]):
        (folder / f"texts/{number}.txt").write_text(f"{word} " * 200)
    run = ForkedRun([str(folder)], program="packing_memory")
    run.communicate(120)
    found = re.search(r"21 documents, (\d+) MB", run.log)
    assert found, run.log
    return int(found[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_long_document_takes_as_much_memory_as_one_of_half_its_length(tmp_path: Path) -> None:
    half, whole = grown_by(tmp_path / "half", 6), grown_by(tmp_path / "whole", 12)
    assert half < MOST_MB and whole < half + 40, (half, whole)
