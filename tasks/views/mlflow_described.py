"""What MLflow shows of a run beside its metrics: parameters, data sets, the name of a child, who started it where."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.views.mlflow_metrics import Known
from tasks.views.mlflow_names import flatten, joined
from tasks.workspace import paths
from tasks.workspace.home import EXPERIMENT
from velocitune_core.config import ConfigError, Params, Source, without_credentials
from velocitune_core.contracts import ContractError, InitialLosses, Manifest, Targets
from velocitune_core.style.text import tokens_text
from velocitune_core.train.job import Job, TrainJob, read_job

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

MAIN = "training"  # job name of the continual pretraining
MOST_WEIGHTS = 50  # domain weights that are parameters too; of any number they are metrics
EXPERIMENT_TAG = "dvc.experiment"
_DIGEST = 12  # characters of a hash that lists have room for
_ELSEWHERE = {"domains", "measured", "model_sha256", "reference_sha256", "initial_domain_weights", "save_model"}


def job_in(folder: Path) -> Job | None:
    """Return the job of a run folder; None if it cannot be read."""
    try:
        return read_job(folder / "job.json")
    except (ConfigError, OSError):
        return None


def child_name(job: Job, name: str, params: Params) -> str:
    """Return the name of a run: what it is, its tokens and its seed.

    Args:
        name: of the run here; its folder may have been made under another one.
    """
    if not isinstance(job, TrainJob):
        return name
    what = re.sub(r"-seed-\d+", "", name)
    strategy = params.strategy.name if name == MAIN else ""
    sequence_length = next(iter(_shapes(job).values()), (0, 0))[1]
    tokens = job.total_steps * job.training.batch_sequences * sequence_length
    size = f"{tokens_text(tokens)} tokens" if tokens else f"{job.total_steps} steps"
    return joined(what, strategy, size, f"seed {job.training.seed}")


def child_params(job: Job) -> dict[str, str]:
    """Return what acted on a run: the values of its recipe, without hashes, losses by domain, and secrets."""
    tree = {key: value for key, value in job.recipe().items() if key not in _ELSEWHERE}
    if isinstance(job, TrainJob):
        options = job.strategy.options.items()
        tree["strategy"] = tree["strategy"] | {"options": {k: v for k, v in options if not isinstance(v, Mapping)}}
        if len(job.domains) <= MOST_WEIGHTS:
            weights = job.initial_domain_weights.items()
            tree["initial_domain_weights"] = {name: f"{weight:.4f}" for name, weight in weights}
    return {key: str(value) for key, value in flatten(without_credentials(tree), ".") if value is not None}


def datasets_of(job: Job, params: Params) -> list[DatasetInput]:
    """Return the training text of every domain: its source, the hash of its packed file, and its tokens."""
    if not isinstance(job, TrainJob):
        return []
    shapes = _shapes(job)
    return [
        _dataset(name, files.train_sha256, params, "training", shapes.get(name)) for name, files in job.domains.items()
    ]


def datasets_of_pipeline(params: Params) -> list[DatasetInput]:
    """Return the training text and the held-out text of every domain, if they are packed."""
    try:
        manifest = Manifest.read(paths.MANIFEST)
    except ContractError:
        return []
    length = manifest.sequence_length
    splits = [(name, "training", domain.train) for name, domain in manifest.domains.items()]
    splits += [(name, "held out", each.held_out) for name, each in (manifest.domains | manifest.measured).items()]
    return [_dataset(name, split.sha256, params, context, (split.sequences, length)) for name, context, split in splits]


def _dataset(name: str, sha256: str, params: Params, context: str, shape: tuple[int, int] | None) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"sha256": sha256} | ({} if shape is None else {"sequences": shape[0], "tokens": shape[0] * shape[1]})
    domain = params.domains.get(name)
    kind, source = ("local", {"uri": ""}) if domain is None else _source(domain.source, params.data.path)
    dataset = Dataset(
        name=name,
        digest=sha256[:_DIGEST],
        source_type=kind,
        source=json.dumps(without_credentials(source)),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _source(source: Source, folder: str) -> tuple[str, dict[str, Any]]:
    """Return MLflow's type of a source, and where it lies."""
    if source.type == "datasets" and not Path(folder, source.path).exists():
        return "hugging_face", {"path": source.path, "split": source.split, "revision": source.revision}
    return "local", {"uri": source.path if "://" in source.path else str(Path(folder, source.path))}


def _shapes(job: TrainJob) -> dict[str, tuple[int, int]]:
    """Return sequences and their length of every packed training file that is here."""
    shapes = {}
    for name, files in job.domains.items():
        try:
            shapes[name] = np.load(files.train, mmap_mode="r").shape
        except (OSError, ValueError):
            continue
    return shapes


def known_of(job: Job, params: Params) -> Known:
    """Return what is known of a run before it starts.

    The losses of the base model are those of every run that starts from it, on the pipeline's held-out text. Targets
    are those of runs of the whole budget: proxies come before them.
    """
    if not isinstance(job, TrainJob):
        return Known()
    weights = job.initial_domain_weights
    try:
        manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    except ContractError:
        return Known(initial_domain_weights=weights)
    held_out = {name: domain.held_out.sha256 for name, domain in manifest.domains.items()}
    same_text = {name: files.held_out_sha256 for name, files in job.domains.items()} == held_out
    if not same_text or job.model != params.model.path or job.training.precision != initial.precision:
        return Known(initial_domain_weights=weights)
    return Known(initial.losses, _targets(job), weights)


def _targets(job: TrainJob) -> dict[str, float]:
    own = job.strategy.options.get("target_loss")
    if isinstance(own, Mapping):
        return {str(name): float(loss) for name, loss in own.items()}
    if job.fraction < 1 or not job.save_model:
        return {}
    try:
        targets = Targets.read(paths.TARGETS).losses()
    except ContractError:
        return {}
    return targets if set(targets) == set(job.domains) else {}


def origin_tags() -> dict[str, str]:
    """Return who runs what: user, command, commit and branch, and the experiment of DVC."""
    tags = {"mlflow.source.name": _command(), "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    for tag, arguments in (("git.commit", ["HEAD"]), ("git.branch", ["--abbrev-ref", "HEAD"])):
        if found := _rev_parse(*arguments):
            tags[f"mlflow.source.{tag}"] = found
    if experiment := os.environ.get(EXPERIMENT):
        tags[EXPERIMENT_TAG] = experiment
    return tags


def _command() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name if spec is not None else Path(sys.argv[0]).name or "python"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user ID without a name, as in containers
        return str(os.getuid())


def _rev_parse(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", "rev-parse", *arguments], capture_output=True, text=True, check=False)
    except OSError:  # no such program
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
