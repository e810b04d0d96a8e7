"""Training with and without `data.document_mask` on the embedded mixture: `python benchmarks/document_mask.py`.

Needs the documents of the stage `corpus` (`python -m flows.corpus`) and a scratch folder, `--to`. For each of the two
settings it trains a small base model and continues it on the mixture under static weights, then measures both final
models both ways: attention inside documents, and across. Then it times steps of the two in turn, in processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from velocitune_core import mixture
from velocitune_core.config import Data, Evaluation, Execution, StrategyConfig, Training, load_params
from velocitune_core.contracts import DomainFiles, DomainManifest
from velocitune_core.data.dataset import load_split
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.sources import read_documents
from velocitune_core.model.build import build_llama, train_tokenizer
from velocitune_core.model.io import save_model
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.job import TrainJob
from velocitune_core.train.learner import Learner
from velocitune_core.train.trainer import Trainer

EXECUTION = Execution(evaluation_micro_batch_sequences=8, checkpoint_every_steps=10**9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="scratch folder")
    parser.add_argument("--base-tokens", type=int, default=1_200_000)
    parser.add_argument("--tokens", type=int, default=800_000)
    parser.add_argument("--timed-steps", type=int, default=30, help="of each setting")
    parser.add_argument("--seed", type=int, default=1, help="of the parameters and of the order of the data")
    arguments = parser.parse_args()
    params = load_params(Path("params.yaml"))
    assert params.base is not None
    data = params.data.model_copy(update={"held_out_sequences": 64})
    model = arguments.to / "untrained"
    texts = (each.text for each in read_documents(params.domains["general"].source, Path(data.path)))
    tokenizer = train_tokenizer(texts, params.base.vocabulary_size)
    save_model(build_llama(params.base, tokenizer, data.sequence_length, arguments.seed), tokenizer, model)
    tokenizer = load_tokenizer(str(model))
    packed = {
        name: pack_source(name, domain, tokenizer, data, arguments.to / name, lambda progress: None)[0]
        for name, domain in params.domains.items()
    }
    whole = params.domains["general"].model_copy(update={"max_tokens": None})
    base = {"general": pack_source("general", whole, tokenizer, data, arguments.to / "base/general", lambda p: None)[0]}
    final, masks = {}, {"across": None, "inside": tokenizer.eos_token_id}
    for name, mask in masks.items():
        folder, seed = arguments.to / f"base-{name}", {"seed": arguments.seed}
        settings = params.base.training.model_copy(update=seed)
        train(settings, model, base, arguments.to / "base", folder, arguments.base_tokens, mask, data)
        final[name] = arguments.to / f"final-{name}"
        settings = params.training.model_copy(update=seed)
        train(settings, folder / "model", packed, arguments.to, final[name], arguments.tokens, mask, data)
    held_out = {name: load_split(arguments.to / name / "held_out.npy") for name in packed}
    settings = params.training.model_copy(update={"precision": "float32"})
    losses = {
        (trained, measured): learner(final[trained] / "model", settings, mask).evaluate(held_out, 8)
        for trained in masks
        for measured, mask in masks.items()
    }
    print("held-out loss, nats per token; columns: attention in training / in measuring")
    print(f"{'':12s}{'documents':>10s}" + "".join(f"{' / '.join(pair):>18s}" for pair in losses))
    for name, rows in held_out.items():
        documents = np.mean(np.sum(rows == tokenizer.eos_token_id, axis=1))  # borders in a row
        print(f"{name:12s}{documents:10.1f}" + "".join(f"{each[name]:18.4f}" for each in losses.values()))
    print(f"{'mean':22s}" + "".join(f"{np.mean(list(each.values())):18.4f}" for each in losses.values()))
    time_steps(final["inside"] / "model", settings, masks, held_out, arguments.timed_steps)


def learner(model: Path, settings: Training, mask: int | None) -> Learner:
    return Learner(str(model), settings, EXECUTION, SINGLE_RANK, document_start=mask)


def train(
    settings: Training,
    model: Path,
    domains: dict[str, DomainManifest],
    inputs: Path,
    output: Path,
    tokens: int,
    mask: int | None,
    data: Data,
) -> None:
    """Train `model` on packed domains under weights of their sizes; write `output`/model."""
    sizes = {name: domain.train.sequences for name, domain in domains.items()}
    job = TrainJob(
        name=output.name,
        output=str(output),
        model=str(model),
        domains={
            name: DomainFiles(
                train=str(inputs / each.train.file),
                held_out=str(inputs / each.held_out.file),
                train_sha256="",
                held_out_sha256="",
            )
            for name, each in domains.items()
        },
        document_start=mask,
        initial_domain_weights=mixture.initial_domain_weights(None, sizes),
        total_steps=tokens // (settings.batch_sequences * data.sequence_length),
        training=settings.model_copy(update={"precision": "float32"}),
        evaluation=Evaluation(every_steps=10**9),
        strategy=StrategyConfig(name="static"),
        execution=EXECUTION,
    )
    Trainer(job, SINGLE_RANK).run()


def time_steps(model: Path, settings: Training, masks: dict[str, int | None], held_out: dict, steps: int) -> None:
    """Print the median processor time of a step of each setting, taken in turn, and their ratio."""
    learners = {name: learner(model, settings, mask) for name, mask in masks.items()}
    every = np.concatenate(list(held_out.values())).astype(np.int64)
    random, seconds = np.random.default_rng(1), {name: [] for name in masks}
    for _ in range(steps + 2):
        batch = torch.from_numpy(random.choice(every, settings.batch_sequences, replace=False))
        for name, each in learners.items():
            start = time.process_time()
            each.gradients(batch, np.zeros(len(batch), dtype=np.int64), 1)
            each.apply(1e-6)
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(each[2:]) for name, each in seconds.items()}
    ratio = medians["inside"] / medians["across"]
    shown = ", ".join(f"{name} {1000 * each:.0f} ms" for name, each in medians.items())
    print(f"processor time of a step, median of {steps}: {shown}; inside / across {ratio:.3f}")


if __name__ == "__main__":
    main()
