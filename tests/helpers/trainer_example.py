"""examples/trainer_continual_pretraining.py on a tiny model: twice in a row, and on files that it refuses."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from docs_pages import PROJECT
from tiny import write_inputs

PROGRAM = PROJECT / "examples/trainer_continual_pretraining.py"


def example(folder: Path) -> None:
    """Run it on a tiny model, and once more for more steps."""
    write_inputs(folder)
    for name, stride, words in (("counting", 1, 4000), ("jumping", 3, 400)):  # of 6 examples, one is held out
        text = " ".join(f"word{number * stride % 63 + 1}" for number in range(words))
        (folder / f"{name}.txt").write_text(text)
    sys.argv = [str(PROGRAM), *(str(folder / name) for name in ("model", "counting.txt", "jumping.txt", "out"))]
    for steps in ("4", "8"):
        sys.argv = [*sys.argv[:5], steps]
        runpy.run_path(str(PROGRAM), run_name="__main__")


def example_refusals(folder: Path) -> None:
    """Write what the example says of files that it cannot train on."""
    program = runpy.run_path(str(PROGRAM))
    messages = []
    (folder / "other").mkdir()
    (folder / "short.txt").write_text("word1 " * 70)
    (folder / "other/counting.txt").write_text("word1 " * 4000)
    for second in ("other/counting.txt", "short.txt"):
        try:
            program["main"](*(str(folder / name) for name in ("model", "counting.txt", second, "out2")))
        except SystemExit as end:
            messages.append(str(end))
    (folder / "messages.json").write_text(json.dumps(messages))
