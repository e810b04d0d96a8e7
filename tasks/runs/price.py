"""What finished runs cost: tokens, floating-point operations, seconds."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.runs.run_folder import run_folder
from velocitune_core.contracts import ComparedRun, Manifest, StartingWeights, TrainResult, WeightsRun
from velocitune_core.model.modules import count_parameters
from velocitune_core.plan.cost import ModelShape, Stage, estimate_cost, planned_run
from velocitune_core.train.job import KEY_LENGTH, TrainJob

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from tasks.runs.search import Search


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """Return sizes of a model; parameters are counted on torch's meta device, which allocates none."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        parameters = count_parameters(AutoModelForCausalLM.from_config(config))
    text: Any = config.get_text_config()
    heads = text.num_attention_heads
    return ModelShape(
        parameters=parameters,
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        heads=heads,
        key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary_size=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
    )


def price_of(job: TrainJob, result: TrainResult, manifest: Manifest) -> WeightsRun:
    """Return what a finished run cost."""
    folder, seconds = run_folder(job).name, result.seconds.total
    return WeightsRun(
        name=job.name, folder=folder, tokens=result.tokens, flops=flops_of(job, manifest), seconds=seconds
    )


def flops_of(job: TrainJob, manifest: Manifest) -> float:
    """Return the floating-point operations of a run, evaluations included, as a plan computes them without a probe."""
    held_out = sum(domain.held_out.sequences for domain in manifest.domains.values())
    run = planned_run(job, manifest.sequence_length, held_out, reference=job.reference is not None)
    (cost,) = estimate_cost([Stage(job.name, (run,))], shape_of_folder(job.model), [None])
    return cost.flops


def shape_of_folder(model: str) -> ModelShape:
    """Return sizes of the model in a folder."""
    folder = Path(model).resolve()  # of the folder alone: its files may be links into a cache
    status = (folder / "config.json").stat()
    return _shape_of_folder(folder, status.st_ino, status.st_mtime_ns)  # a stage may make it anew


@lru_cache(maxsize=4)
def _shape_of_folder(folder: Path, inode: int, modified_nanoseconds: int) -> ModelShape:
    from transformers import AutoConfig

    return shape_of(AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


class WeightsPrice(NamedTuple):
    """What found the weights of a run; of a plan in tokens of as many operations."""

    tokens: int
    seconds: float
    runs: dict[str, float]  # seconds of each, without proxies, by the end of its folder's name


def price_of_weights(
    result: TrainResult,
    search: Search,
    parent: ComparedRun | None,
    plan: StartingWeights | None,
    counted: Collection[str],
) -> WeightsPrice:
    """Return what found the weights of a run.

    Args:
        parent: run whose weights were taken: what found those is part of the price.
        counted: names of proxies that are part of the price of the targets.
    """
    tokens, seconds = search.tokens, search.seconds
    runs = {each.recipe[:KEY_LENGTH]: each.seconds.total for each in search.results}
    if parent is not None:
        tokens, seconds = tokens + parent.search_tokens, seconds + parent.search_seconds
        runs |= parent.search_runs
    if plan is not None and plan.planned is not None:
        only = [each for each in plan.paid_runs if each.name not in counted]
        share = sum(each.flops for each in only) / sum(each.flops for each in plan.paid_runs)
        tokens, seconds = round(share * plan.planned.worth.share * result.tokens), sum(each.seconds for each in only)
        runs |= {each.folder.rpartition("-")[2]: each.seconds for each in plan.paid_runs if not each.shared}
    return WeightsPrice(tokens, seconds, runs)
