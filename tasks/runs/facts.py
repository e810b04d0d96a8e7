"""What is known of the main run beside its result, for its report: when, where, by which code, and step by step."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from tokenizers import Tokenizer

from tasks.workspace import paths
from velocitune_core.config import Params, without_credentials
from velocitune_core.contracts import Manifest, SettingsThen
from velocitune_core.report.figures.training import StepPoint
from velocitune_core.report.run_facts import RunFacts
from velocitune_core.style.text import counted
from velocitune_core.train.events import Event, EventFileError, Finished, Started, Stepped, read_events
from velocitune_core.train.job import KEY_LENGTH

STEPS_AT_MOST = 400  # in the curve of the training loss
ROWS_AT_MOST = 256  # of a domain, decoded for its bytes per token
SECONDS_AT_MOST = 300  # after the end of a run, in which the commit is taken to be that of the run
CODE = ("flows", "tasks", "velocitune_core")  # whose changes count; stages themselves write params.yaml and dvc.lock


def settings_of(params: Params) -> SettingsThen:
    """Return the settings as they are now, which of them differ from their default, and the commit of a recent run."""
    changed = without_credentials(params.model_dump(mode="json", exclude_defaults=True))
    commit = _commit() if _is_recent(_end(_events())) else ""
    return SettingsThen(everything=params.shown(), changed=changed, commit=commit)


def run_facts(params: Params, manifest: Manifest, recipe: str = "", settings: SettingsThen | None = None) -> RunFacts:
    """Return what settings, results/events.jsonl and packed data say of the main run, as far as they do.

    Args:
        recipe: fingerprint of the run, whose own job says its seed if its folder is here.
        settings: those that it was made under; the present ones where an older version kept none.
    """
    events = _events()
    starts = [event for event in events if isinstance(event, Started)]
    end = _end(events)
    then = settings or settings_of(params)
    return RunFacts(
        model=params.model.path,
        started=starts[0].time if starts else None,
        finished=end,
        commit=then.commit or _commit(" when the report was made"),
        hardware=_hardware(starts[-1]) if starts else "",
        seed=_seed(params, recipe),
        steps=_thinned([event for event in events if isinstance(event, Stepped)]),
        bytes_per_token=_bytes_per_token(params, manifest),
        changed_settings=yaml.safe_dump(then.changed, sort_keys=False, allow_unicode=True),
    )


def _end(events: Sequence[Event]) -> float | None:
    """Return when the run ended, in seconds since the Unix epoch."""
    return next((event.time for event in reversed(events) if isinstance(event, Finished)), None)


def _is_recent(end: float | None) -> bool:
    """Return whether the commit that is checked out is taken to be that of the run."""
    return end is not None and time.time() - end <= SECONDS_AT_MOST


def _events() -> list[Event]:
    try:
        return list(read_events(paths.EVENTS))
    except EventFileError:  # of an older version: the report needs none
        return []


def _hardware(start: Started) -> str:
    return f"{counted(start.world_size, 'process')} on {start.hardware or start.device}"


def _thinned(steps: Sequence[Stepped]) -> list[StepPoint]:
    """Return at most STEPS_AT_MOST steps, evenly, the last one among them."""
    every = -(-len(steps) // STEPS_AT_MOST) or 1
    kept = steps[::-1][::every][::-1]
    return [StepPoint(step.tokens, step.loss, step.learning_rate) for step in kept]


def _seed(params: Params, recipe: str) -> int:
    """Return the seed in the job of a run; where that cannot be read, the present one."""
    jobs = paths.RUNS.glob(f"*-{recipe[:KEY_LENGTH]}/job.json") if recipe else ()
    try:
        return next(json.loads(each.read_text(encoding="utf-8")) for each in jobs)["training"]["seed"]
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return params.training.seed


def _commit(when: str = "") -> str:
    """Return the commit that is checked out, with `when`, and whether the code was changed; nothing without git."""
    try:
        head, changes = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=False)
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", *CODE])
        )
    except OSError:  # no such program
        return ""
    if head.returncode:
        return ""
    changed = ", with changes to the code" if changes.stdout.strip() else ""
    return f"{head.stdout.strip()}{when}{changed}"


def _bytes_per_token(params: Params, manifest: Manifest) -> dict[str, float]:
    """Return the bytes of UTF-8 per token of each domain's held-out rows; nothing without a tokenizer file or the rows.

    Tokens at the borders of documents are tokens without bytes.
    """
    folders = (paths.TRAINED_MODEL, Path(params.model.path))
    file = next((each / "tokenizer.json" for each in folders if (each / "tokenizer.json").is_file()), None)
    packed = {name: paths.PREPARED / domain.held_out.file for name, domain in manifest.domains.items()}
    if file is None or not all(path.is_file() for path in packed.values()):
        return {}
    tokenizer = Tokenizer.from_file(str(file))
    found = {}
    for name, path in packed.items():
        rows = np.load(path, mmap_mode="r")[:ROWS_AT_MOST]
        texts = tokenizer.decode_batch(rows.tolist(), skip_special_tokens=True)
        cut = "\N{REPLACEMENT CHARACTER}"  # at the ends of a row, of a character that it divides
        found[name] = sum(len(text.strip(cut).encode()) for text in texts) / max(rows.size, 1)
    return {name: share for name, share in found.items() if share > 0}
