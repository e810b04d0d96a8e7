"""Run the commands that README and docs show, as they stand there, in a workspace with small settings.

Usage: `python .ci/commands_of_docs.py`, in a clone with the documents of the stage `corpus` and an identity for Git.
What is not run is named in NOT_RUN with its reason; an entry there that no page shows any more is an error.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.append("tests/helpers")

from docs_pages import commands, shell_blocks

MAKE = "sets up an environment first; its own command is run"
PIP = "installs packages: tests/test_package.py builds and installs the wheel"
TESTED = "tests/test_commands_of_docs.py runs it, with the files that the page speaks of"
MACHINES = "needs several GPUs or machines"
STORE = "needs a store of one's own; tests/tasks push to a folder and pull from it"
LARGE = "downloads gigabytes, or trains for an hour"
FIGURES = "trains for an hour, for the figures of its page"
NOT_RUN = {  # how a command begins: why it is not run
    "make ": MAKE,
    "pip ": PIP,
    "velocitune fit": TESTED,
    "velocitune export --to": TESTED,
    "source ": "its environment is this one",
    "prefect deployment run": ".ci/end-to-end runs deployments",
    "dvc remote add": STORE,
    "dvc push": STORE,
    "dvc pull": STORE,
    "dvc exp apply NAME": "NAME stands for an experiment of one's own",
    "dvc exp run --temp": "trains all stages once more in a copy; tests/tasks/runs/test_run_folder.py works in one",
    "python -m flows.downstream --fresh": "the same as without --fresh, once more",
    "torchrun ": MACHINES,
    "python -m torch.distributed.run": MACHINES,
    "python -m flows.pipeline -S resources.nodes=8": MACHINES,
    "ray start": MACHINES,
    "RAY_ADDRESS": MACHINES,
    "caps=": LARGE,
    "python -m flows.large": LARGE,
    "python -m flows.jobs --workspace large/": LARGE,
    "python -m flows.collect --workspace large/": LARGE,
    "python -m flows.pipeline --workspace large/": LARGE,
    "python -m velocitune_core.train --all large/": LARGE,
    "python -m flows.pipeline --compare -S evaluation.every_steps=16": FIGURES,
    "python -m flows.pipeline --compare -S domains.code.max_tokens": FIGURES,
    "python -m flows.pipeline -S strategy.name=static -S data.held_out_sequences=20": FIGURES,
    "python benchmarks/document_mask.py": FIGURES,
    "python benchmarks/proxies.py": FIGURES,
    "python benchmarks/fresh_text.py": "needs the models of a comparison, which here are left in a folder of jobs",
    "python benchmarks/objectives.py --fresh": "needs the table of benchmarks/fresh_text.py",
    "python examples/imbalanced_classes.py": "tests/test_examples_uses.py runs it with fewer seeds",
    "python benchmarks/simulate.py": "tests/test_simulate.py runs it",
}
DOMAINS = ["code", "legal", "cli", "papers", "literature", "biomed", "general"]
SMALL = {  # beside tests/miniature.yaml
    "strategy": {"name": "recommended"},
    "mixture": {"initial_domain_weights": None, "swarm": {"runs": 8, "bootstrap": 8}},
    "domains": {name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}, "max_tokens": 15000} for name in DOMAINS},
    "compare": {
        "seeds": [1],
        "frontier": ["static", "temperature-2"],
        "runs": {
            "static": {"strategy": "static"},
            "temperature-2": {"strategy": "temperature", "options": {"temperature": 2.0}},
            "recommended": {"strategy": "recommended"},
        },
    },
    "downstream": {"instances": 2},
}


def small_settings(**others: Any) -> str:
    settings = yaml.safe_load(Path("tests/miniature.yaml").read_text()) | SMALL | others
    settings["training"]["seed"] = 1  # DVC overrides only what the file has
    settings["proxies"]["evaluations"] = 3  # which is enough for `targets.points: intermediate`
    return yaml.safe_dump(settings, sort_keys=False)


def make_small(workspace: Path) -> None:
    """Give a new workspace small settings, and the documents of this one."""
    data = yaml.safe_load(Path("tests/miniature.yaml").read_text())["data"]
    (workspace / "params.yaml").write_text(small_settings(data=data | {"path": str(Path("data/embedded").resolve())}))


def write_sources() -> None:
    Path("data/raw/manuals").mkdir(parents=True)
    Path("data/raw/notes.jsonl.zst").write_bytes(b"")
    Path("data/raw/manuals/one.txt").write_text("A manual.\n")


def write_texts() -> None:
    for name in ("first.txt", "second.txt"):
        Path(name).write_text("\n\n".join(f"{name} has a paragraph with the number {n}." for n in range(400)))


BEFORE: Mapping[str, Callable[[], object]] = {  # what a page supposes to be there
    "dvc add data/raw": write_sources,
    "python -m flows.downstream models/trained runs/mine": lambda: shutil.copytree("models/trained", "runs/mine"),
    "python examples/trainer": write_texts,
}
AFTER: Mapping[str, Callable[[], object]] = {"velocitune init work": lambda: make_small(Path("work"))}


def begins(command: str, table: Mapping[str, Any]) -> str | None:
    return next((start for start in table if command.startswith(start)), None)


def runs(place: str, command: str) -> bool:
    """Run a command of a page, say how long it took, and show what it printed if it failed."""
    began = time.monotonic()
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False)
    print(f"{place}: {command}: {time.monotonic() - began:.0f} s", flush=True)
    if ended.returncode:
        print(f"exit status {ended.returncode}", ended.stdout[-3000:], ended.stderr[-3000:], sep="\n", flush=True)
    return ended.returncode == 0


def main() -> None:
    Path("params.yaml").write_text(small_settings())
    shown = [(str(block), words) for block in shell_blocks() for words in commands(block)]
    unused = [start for start in NOT_RUN if not any(" ".join(words).startswith(start) for _, words in shown)]
    assert not unused, f"no page shows {unused}"
    failed, done = [], set()
    for place, words in shown:
        command = shlex.join(words)
        if command in done or begins(" ".join(words), NOT_RUN):
            continue
        done.add(command)
        if start := begins(command, BEFORE):
            BEFORE[start]()
        if not runs(place, command):
            failed.append(command)
        if start := begins(command, AFTER):
            AFTER[start]()
    print(f"{len(done)} commands of README and docs: {len(done) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
