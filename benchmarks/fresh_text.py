"""A comparison's final models on held-out text that steered nothing: `python <here>/fresh_text.py` in its workspace.

Strategies choose weights by the held-out losses of `prepared`, and a comparison measures by the same: what they win
there could be of that text alone. Here every final model is scored on other held-out sequences of the same domains;
those that `prepared` has too are left out. Prints the comparison's table for them; --csv writes a row per run.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tasks.views.terminal import print_table
from tasks.workspace import paths
from velocitune_core.comparison.tables import formatted_comparison
from velocitune_core.config import Params, load_params
from velocitune_core.contracts import ComparedRun, Comparison, Manifest, TrainResult
from velocitune_core.data.dataset import load_split
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.packing.progress import Progress
from velocitune_core.evaluation.held_out import evaluate
from velocitune_core.model.io import load_model
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.job import TrainJob, read_job

SHOWN = ("strategy", "seeds", "macro", "to ", "size", "learnt", "retention")
Losses = dict[str, float]


def fresh_rows(params: Params, sequences: int) -> dict[str, np.ndarray]:
    """(n ≤ sequences, length) per domain: held out, and not in `prepared`."""
    tokenizer, manifest = load_tokenizer(params.model.path), Manifest.read(paths.MANIFEST)
    data = params.data.model_copy(update={"held_out_sequences": sequences})
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, domain in params.domains.items():
            packed, _ = pack_source(name, domain, tokenizer, data, Path(folder) / name, _unwatched)
            known = {row.tobytes() for row in load_split(paths.PREPARED / manifest.domains[name].held_out.file)}
            drawn = np.array(load_split(Path(folder) / packed.held_out.file))
            rows[name] = drawn[[row.tobytes() not in known for row in drawn]]
    return rows


def scorer(rows: dict[str, np.ndarray], batch_sequences: int, document_start: int | None) -> Callable[[str], Losses]:
    """Return the losses of a model; `document_start` keeps attention inside documents, as in its training."""

    def score(model: str) -> Losses:
        loss = NextTokenLoss(load_model(model), document_start=document_start)
        return evaluate(loss, rows, batch_sequences=batch_sequences, ranks=SINGLE_RANK)

    return score


def final_models(comparison: Comparison) -> dict[tuple[str, int], str]:
    """Folder of every run's model, found by its result."""
    wanted = {(run.label, run.seed): run.result for run in comparison.runs}
    found = {}
    for file in paths.RUNS.glob("*/result.json"):
        if not isinstance(read_job(file.with_name("job.json")), TrainJob):
            continue  # an evaluation
        result = TrainResult.read(file)
        for key, each in wanted.items():
            if each == result and (file.parent / "model").is_dir():
                found[key] = str(file.parent / "model")
    if missing := sorted(set(wanted) - set(found)):
        raise SystemExit(f"no models of {missing} in {paths.RUNS}; `make compare` trains them again")
    return found


def rescored(comparison: Comparison, score: Callable[[str], Losses], base: str) -> Comparison:
    """The same comparison, its first and last losses those of the other text."""
    models = final_models(comparison)

    def again(run: ComparedRun) -> ComparedRun:
        final = score(models[run.label, run.seed])
        last = run.result.points[-1].model_copy(update={"losses": final})
        result = run.result.model_copy(update={"final": final, "points": [*run.result.points[:-1], last]})
        return run.model_copy(update={"result": result})

    runs = [again(run) for run in tqdm(comparison.runs, unit="model")]
    return comparison.model_copy(update={"initial": score(base), "runs": runs})


def write_csv(path: Path, comparison: Comparison) -> None:
    names = list(comparison.initial)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["strategy", "seed", *(f"loss_{name}" for name in names)])
        for run in comparison.runs:
            table.writerow([run.label, run.seed, *(f"{run.result.final[name]:.6f}" for name in names)])


def _unwatched(_: Progress) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=80, help="of other text per domain, at most (default 80)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default all cores)")
    parser.add_argument("--csv", type=Path, help="where to write a row per run")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    params, comparison = load_params(paths.PARAMS), Comparison.read(paths.COMPARISON)
    rows = fresh_rows(params, arguments.sequences)
    batch, start = (
        params.execution.evaluation_micro_batch_sequences,
        Manifest.read(paths.MANIFEST).documents.attention_start,
    )
    fresh = rescored(comparison, scorer(rows, batch, start), params.model.path)
    table = [
        {column: cell for column, cell in row.items() if column.startswith(SHOWN)}
        for row in formatted_comparison(fresh)
    ]
    counts = sorted({len(each) for each in rows.values()})
    print_table(f"On {counts[0]} to {counts[-1]} other sequences per domain", table)
    if arguments.csv:
        write_csv(arguments.csv, fresh)


if __name__ == "__main__":
    main()
