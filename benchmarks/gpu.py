"""The training engine on a GPU, correctness first: `python benchmarks/gpu.py`.

Needs torch, transformers, numpy, safetensors, pydantic and no network. Every row is a process of its own; finished
rows are kept in `--out`/rows.json, so a run that was cut short goes on with the next row. Prints a table per part and
exits with 1 if a check failed. `--miniature` runs every row on any machine, in small, to test the script itself.

Parts: `checks` (GPU against CPU, bfloat16 by FSDP2 of one rank against float32 without FSDP2, resume), `speed` (tokens
per second, model FLOPs utilisation and peak memory of 30 M to 1.2 B parameters, attention inside documents and across
them, and how often a step waits for the GPU), `trainer` (the same steps by transformers' Trainer, which needs
accelerate) and `overhead` (what reweighting adds to a run). Utilisation is 6·N + 12·L·H·Q·T FLOPs per token (see
velocitune_core.plan) over the card's dense bfloat16 peak.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gpu_inputs import (
    CHECKPOINT_STEPS,
    SHAPES,
    VOCABULARY,
    events,
    killed_and_resumed,
    losses,
    run,
    write_domains,
    write_job,
    write_model,
)

PROJECT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))  # not installed
sys.path.insert(0, str(PROJECT))
PEAK_TFLOPS = 989.0  # dense bfloat16 of an H100 or H200 SXM, by its maker
SPEED = [  # model, compile, activation checkpointing, sequences per forward pass, document mask
    ("135M", "never", False, 16, False),
    ("135M", "never", False, 16, True),
    ("135M", "always", False, 16, False),
    ("135M", "always", False, 16, True),
    ("135M", "always", True, 16, False),
    ("1B", "never", False, 4, False),
    ("1B", "always", False, 4, False),
    ("1B", "always", True, 16, False),
    ("30M", "always", False, 32, False),
]
TRAINER = [("135M", False, 16), ("135M", True, 16), ("30M", True, 32), ("1B", True, 4)]  # model, compile, micro-batch
CHECKS = {  # name: largest difference allowed, nats per token
    "float32: GPU against CPU": 1e-4,
    "bfloat16 against float32, GPU": 1e-2,
    "bfloat16: GPU against CPU": 1e-2,
    "compiled against not, float32": 1e-4,
    "activation checkpointing against none, float32": 1e-4,
    "accumulated in four against whole, float32": 1e-4,
    "killed and resumed against unbroken, float32": 1e-4,
    "killed and resumed against unbroken, bfloat16": 1e-2,
}
CHECK_STEPS = 60
PARTS = ("product", "checks", "speed", "trainer", "overhead")


def check(scratch: Path, miniature: bool) -> list[dict[str, Any]]:
    """Compare the curves of several runs of one model on one text."""
    length, batch, steps = (16, 4, 24) if miniature else (256, 16, CHECK_STEPS)
    write_model(scratch / "model", SHAPES["miniature" if miniature else "check"], length)
    domains = write_domains(scratch, length, sequences=200, vocabulary=VOCABULARY)

    def curve(name: str, *, gpu: bool = True, how: Callable[..., Path] = run, **changes: Any) -> np.ndarray:
        every = {"checkpoint_every_steps": 8 if miniature else CHECKPOINT_STEPS}
        job = write_job(scratch / name, scratch / "model", domains, steps, batch, **(every | changes))
        return losses(how(job) if how is killed_and_resumed else how(job, gpu=gpu))

    single, half = {"precision": "float32"}, {"precision": "bfloat16"}
    gpu32, gpu16 = curve("gpu32", **single), curve("gpu16", **half)
    pairs = [
        (gpu32, curve("cpu32", gpu=False, **single)),
        (gpu16, gpu32),
        (gpu16, curve("cpu16", gpu=False, **half)),
        (gpu32, curve("compiled", **single, compile="always")),
        (gpu32, curve("checkpointing", **single, activation_checkpointing=True)),
        (gpu32, curve("accumulated", **single, micro_batch_sequences=batch // 4)),
        (gpu32, curve("resumed32", how=killed_and_resumed, **single)),
        (gpu16, curve("resumed16", how=killed_and_resumed, **half)),
    ]
    rows = []
    for (name, allowed), (one, other) in zip(CHECKS.items(), pairs, strict=True):
        difference = float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")
        rows.append({"check": name, "largest difference, nats": difference, "allowed": allowed})
        rows[-1]["passed"] = difference <= allowed
    rows.append({"check": "losses fall, first → last step", "from": float(gpu32[0]), "to": float(gpu32[steps - 1])})
    rows[-1]["passed"] = rows[-1]["to"] < rows[-1]["from"] - (0.0 if miniature else 0.5)
    return rows


def speed(
    scratch: Path, miniature: bool, name: str, compile_: str, checkpointing: bool, micro: int, masked: bool
) -> dict[str, Any]:
    """Time the steps of a Learner: batches of 32 × 2,048 tokens, forward, backward and AdamW."""
    import torch
    from gpu_steps import DOCUMENT_START, timed_steps

    from velocitune_core.config import Execution, Optimizer, Training
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks
    from velocitune_core.train.learner import Learner

    batch, length, steps = (4, 32, 2) if miniature else (32, 2048, 8)
    shape = SHAPES["miniature" if miniature else name]
    write_model(scratch / "model", shape, length)
    settings = Training(batch_sequences=batch, optimizer=Optimizer(learning_rate=1e-4), precision="bfloat16")
    execution = Execution(
        micro_batch_sequences=min(micro, batch), compile=compile_, activation_checkpointing=checkpointing
    )
    ranks = join_ranks()
    document_start = DOCUMENT_START if masked else None
    learner = Learner(str(scratch / "model"), settings, execution, ranks, document_start=document_start)
    timed = timed_steps(learner, (batch, length), shape.get("vocab_size", VOCABULARY), ranks.device, steps)
    seconds, places = timed["seconds"], timed["places"]
    attention = 12 * shape["num_hidden_layers"] * shape["hidden_size"] * length
    flops = (6 * learner.parameters + attention) * batch * length / seconds
    gpu = ranks.device.type == "cuda"
    leave_ranks()
    return {
        "model": name,
        "parameters": learner.parameters,
        "compile": compile_ == "always",
        "checkpointing": checkpointing,
        "micro-batch": min(micro, batch),
        "document mask": masked,
        "tokens/s": batch * length / seconds,
        "MFU": flops / (PEAK_TFLOPS * 1e12),
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0,
        "first step, s": timed["first"],
        "waits": sum(places.values()),
        "of them in transformers": sum(count for place, count in places.items() if "/transformers/" in place),
        "places": places,
    }


def matrix_product(miniature: bool) -> dict[str, Any]:
    """What the card reaches on a large product of random bfloat16 matrices."""
    import torch

    size, device = (64, "cpu") if miniature else (8192, "cuda")
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"card": card, "torch": torch.__version__, "TFLOP/s": 2 * size**3 / statistics.median(times) / 1e12}


def overhead(scratch: Path, miniature: bool) -> dict[str, Any]:
    """A whole run of the training program with seven domains: what is not steps, by what it was."""
    length, batch, steps = (32, 4, 16) if miniature else (2048, 32, 96)
    shape = SHAPES["miniature" if miniature else "135M"]
    write_model(scratch / "model", shape, length)
    domains = write_domains(scratch, length, 200, VOCABULARY)
    settings = {"checkpoint_every_steps": 32, "compile": "auto", "precision": "bfloat16", "micro_batch_sequences": 16}
    folder = run(
        write_job(
            scratch / "run",
            scratch / "model",
            domains,
            steps,
            batch,
            **({} if miniature else settings),
        )
    )
    result = json.loads((folder / "result.json").read_text())
    seconds = result["seconds"]
    wall = events(folder, "finished")[-1]["time"] - events(folder, "started")[0]["time"]
    row = {
        f"{name}, %": 100 * seconds[name] / wall for name in ("sampling", "evaluation", "reweighting", "checkpointing")
    }
    return {"model": "135M", "steps": result["steps"], "tokens/s": result["tokens_per_second"], "wall, s": wall, **row}


def rows_wanted() -> dict[str, dict[str, Any]]:
    """Every row by its key, as arguments of the process that measures it."""
    wanted: dict[str, dict[str, Any]] = {"checks": {"part": "checks"}, "product": {"part": "product"}}
    for setting in SPEED:
        wanted["speed " + " ".join(map(str, setting))] = {"part": "speed", "setting": setting}
    for row in TRAINER:
        wanted["trainer " + " ".join(map(str, row))] = {"part": "trainer", "setting": row}
    return wanted | {"overhead": {"part": "overhead"}}


def measure(row: dict[str, Any], miniature: bool) -> Any:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if row["part"] == "checks":
            return check(scratch, miniature)
        if row["part"] == "product":
            return matrix_product(miniature)
        if row["part"] == "overhead":
            return overhead(scratch, miniature)
        if row["part"] == "trainer":
            from gpu_trainer import trainer_speed

            return trainer_speed(scratch, miniature, *row["setting"])
        return speed(scratch, miniature, *row["setting"])


def table(rows: list[dict[str, Any]]) -> str:
    """Plain columns, as this must run without rich."""

    def cell(value: Any) -> str:
        return (
            f"{value:,.4g}"
            if isinstance(value, float) and value < 1000
            else f"{value:,.0f}"
            if isinstance(value, float)
            else str(value)
        )

    names = list(dict.fromkeys(name for row in rows for name in row if name != "places"))
    lines = [names, *[[cell(row.get(name, "")) for name in names] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of rows.json (gpu-results)")
    parser.add_argument("--part", choices=PARTS, help="this part only")
    parser.add_argument("--miniature", action="store_true", help="in small, on any machine")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        Path(os.environ["ROW_FILE"]).write_text(json.dumps(measure(json.loads(arguments.row), arguments.miniature)))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "rows.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for key, row in rows_wanted().items():
        if key in done or (arguments.part and row["part"] != arguments.part):
            continue
        file = arguments.out / "row.json"
        file.unlink(missing_ok=True)
        flags = ["--miniature"] if arguments.miniature else []
        begun = time.perf_counter()
        command = [sys.executable, __file__, "--row", json.dumps(row), *flags]
        status = subprocess.call(command, env=os.environ | {"ROW_FILE": str(file.resolve())})
        outcome = "done" if status == 0 else f"failed with status {status}"
        print(f"{key}: {outcome} in {time.perf_counter() - begun:.0f} s", flush=True)
        if status == 0:
            done[key] = json.loads(file.read_text())
            kept.write_text(json.dumps(done, indent=1))
            file.unlink()
    for part in PARTS:
        measured = [done[key] for key, row in rows_wanted().items() if row["part"] == part and key in done]
        if measured:
            print(f"\n{part}\n{table(measured[0] if part == 'checks' else measured)}")
    failed = [row["check"] for row in done.get("checks", []) if not row["passed"]]
    failed += [key for key, row in done.items() if "waits" in row and row["waits"] - row["of them in transformers"] > 1]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed or (len(done) < len(rows_wanted()) and not arguments.part) else 0


if __name__ == "__main__":
    sys.exit(main())
