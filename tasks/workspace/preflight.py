"""Everything that can be checked before any work, with all problems in one message."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import paths
from tasks.workspace.data_folder import source_problems
from tasks.workspace.model_checks import base_problems, folder_problems, length_problems, model_fit
from tasks.workspace.params_file import overridden_text, params_tree, read_params, read_settings
from tasks.workspace.planned_checks import planned_problems, strategy_problems
from tasks.workspace.planned_settings import compared_label, unwatched_siblings
from tasks.workspace.record_store import store_problems
from tasks.workspace.run_lengths import budget_problems
from tasks.workspace.said_once import warn_once
from velocitune_core.config import ConfigError, Params
from velocitune_core.spelling import with_nearest
from velocitune_core.strategies import PLANNED, check_strategy, measured_options, strategy_modules

logger = logging.getLogger(__name__)


def checked_params(comparing: bool = False) -> Params:
    """Read params.yaml of this workspace and check all that it names.

    Args:
        comparing: check the section `compare`, too.

    Raises ConfigError with every problem that can be found before work starts.
    """
    try:
        params = read_params()
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *_strategy_problems_beside_others()])) from None
    _refuse(_out_of_reach(params))
    model = model_fit(params)
    problems = [*model.problems, *source_problems(params), *_runner_problems(params), *store_problems(params.tracking)]
    problems += _unwatched_keys(paths.PIPELINE)
    problems += [*_strategy_problems(params), *planned_problems(params, comparing), *budget_problems(params, comparing)]
    if comparing:
        problems += [*_unwatched_keys(paths.COMPARE_PIPELINE), *_comparison_problems(params)]
    _refuse(problems)
    for warning in [
        *model.warnings,
        *_unwatched_strategies(params, comparing),
        *_unwatched_siblings(params, comparing),
    ]:
        warn_once(warning)
    return params


def checked_settings(overrides: Mapping[str, Any], comparing: bool = False, *, inputs: bool = False) -> Params:
    """Read params.yaml under overrides, without writing them; the files that it names need not exist yet.

    Args:
        inputs: check the model and the sources of the domains, too, without reading weights or rows.

    Raises ConfigError with every problem of the settings themselves.
    """
    if overrides:
        read_params()  # reports problems of the file itself
        params = read_settings(overridden_text(overrides)[0], "overrides")
    else:
        params = read_params()
    _refuse(_out_of_reach(params))
    problems = [
        *base_problems(params),
        *length_problems(params),
        *_strategy_problems(params),
        *planned_problems(params, comparing),
        *budget_problems(params, comparing),
    ]
    problems += [*store_problems(params.tracking), *(_comparison_problems(params) if comparing else [])]
    if inputs:
        problems = [*folder_problems(params), *problems, *source_problems(params)]
    _refuse(problems)
    return params


def _out_of_reach(params: Params) -> list[str]:
    """Return the paths of the settings that this user may not open, or that cannot be looked up.

    A missing path is none of them: not all have to be there.
    """
    data = Path(params.data.path)
    named = {"model.path": Path(params.model.path)}
    if (sibling := params.mixture.swarm.model) is not None:
        named["mixture.swarm.model"] = Path(sibling)
    problems = [f"data.path: {problem}" for problem in _closed(data, os.X_OK)]
    if not problems:
        named |= {f"domains.{name}.source.path": data / each.source.path for name, each in params.domains.items()}
    return problems + [f"{field}: {problem}" for field, path in named.items() for problem in _closed(path, os.R_OK)]


def _closed(path: Path, use: int) -> list[str]:
    """Return why a path cannot be opened, for use as one of `os.R_OK` and the like; a folder is entered, too."""
    try:
        use |= os.X_OK if stat.S_ISDIR(path.stat().st_mode) else 0
        if os.access(path, use, effective_ids=os.access in os.supports_effective_ids):
            return []
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        fix = "allow it, or name another place" if isinstance(error, PermissionError) else "name another place"
        return [f"{path} cannot be opened: {error.strerror}; {fix}"]


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError(f"{paths.PARAMS}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _strategy_problems_beside_others() -> list[str]:
    """Return problems of the strategy in a file that has other problems."""
    try:
        strategy = params_tree()["strategy"]
        name, options = strategy["name"], strategy.get("options") or {}
        return [f"  {problem}" for problem in check_strategy(name, options, ["any"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []  # the strategy cannot be read


def _strategy_problems(params: Params) -> list[str]:
    return strategy_problems(params.strategy.name, params.strategy.options, params)


def _comparison_problems(params: Params) -> list[str]:
    """Return problems of every compared run, and of the domains that are to be retained."""
    if params.compare is None:
        return ["compare: missing; name the strategies to compare and their seeds"]
    problems = [
        f"compare.runs.{label}: {problem}"
        for label, compared in params.compare.runs.items()
        for problem in strategy_problems(compared.strategy, compared.options, params)
    ]
    if not problems:
        problems += [each for label in params.compare.runs for each in _unused_settings(params, label)]
    known = sorted(params.training_domains)
    if unknown := sorted(set(params.compare.retained or []) - set(known)):
        problems.append(
            f"compare.retained: {with_nearest(unknown, known)} are no domains; choose from {', '.join(known)}, or give "
            "-S compare.retained=null for those without a gap to their target"
        )
    return problems


def _unused_settings(params: Params, label: str) -> list[str]:
    """Return the settings of a label that its run would not use, some of them after runs that were made for nothing."""
    compared, problems = compared_label(params, label), []
    if compared.weights_of is not None and compared.strategy != "static":
        problems.append(
            f"compare.runs.{label}.weights_of: its run holds the weights of {compared.weights_of}, and "
            f"{compared.strategy} finds its own; set strategy to static, or leave the key out"
        )
    follows = "target_loss" in measured_options(compared.strategy)
    own = compared.own_targets is not None
    if compared.targets != "fitted" and not (follows or (own and compared.strategy == PLANNED)):
        use = "targets of its own" if own else f"the targets {compared.targets!r}"
        problems.append(f"compare.runs.{label}.targets: {compared.strategy} has no use for {use}; leave the key out")
    return problems


def _runner_problems(params: Params) -> list[str]:
    if params.proxies.runner == "ray" and find_spec("prefect_ray") is None:
        return ["proxies.runner: Ray is not installed; run `pip install -c constraints.txt -e '.[ray]'`, or set local"]
    return []


def _unwatched_keys(pipeline: Path) -> list[str]:
    """Return keys that a dvc.yaml watches and params.yaml omits: DVC does not watch defaults."""
    tree = params_tree()
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"].values()
    watched = sorted({key for stage in stages for key in stage.get("params", [])})
    return [f"{key}: missing, and {pipeline} watches it; set it" for key in watched if not _has(tree, key)]


def _has(tree: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def _unwatched_strategies(params: Params, comparing: bool) -> list[str]:
    stages = {params.strategy.name: "train" if params.strategy.search is None else "weights"}
    if comparing and params.compare is not None:
        stages = {run.strategy: "comparison/dvc.yaml:compare" for run in params.compare.runs.values()}
    return [
        f"strategy {name}: DVC does not watch {next(iter(strategy_modules(name).values()))}; after a change of it, or "
        f"of what it imports, run `python -m flows.pipeline`, or `dvc repro --force --single-item {stage}` before "
        "`dvc repro`"
        for name, stage in stages.items()
        if ":" in name
    ]


def _unwatched_siblings(params: Params, comparing: bool) -> list[str]:
    stage = "comparison/dvc.yaml:compare" if comparing else "weights"
    return [
        f"mixture.swarm.model: DVC does not watch {model}; after a change of it, run `python -m flows.pipeline`, or "
        f"`dvc repro --force --single-item {stage}` before `dvc repro`"
        for model in unwatched_siblings(params, comparing)
    ]
