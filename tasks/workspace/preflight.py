"""Everything that can be checked before any work, with all problems in one message."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import paths
from tasks.workspace.data_folder import source_problems
from tasks.workspace.params_file import overridden_text, params_tree, read_params
from tasks.workspace.planned_settings import planned_problems, strategy_problems
from velocitune_core.config import ConfigError, Params, parse_params
from velocitune_core.model.fits_data import Fit, check_length, check_vocabulary
from velocitune_core.model.folder import ModelError, check_model_folder
from velocitune_core.model.trainable import check_trainable
from velocitune_core.strategies import check_strategy, strategy_modules

logger = logging.getLogger(__name__)


def checked_params(comparing: bool = False, packing: bool = False) -> Params:
    """Read params.yaml of this workspace and check all that it names.

    Args:
        comparing: check the section `compare`, too.
        packing: check the tokenizer and the attention mask, too; that takes seconds, and packed data do not need it.

    Raises ConfigError with every problem that can be found before work starts.
    """
    try:
        params = read_params()
    except ConfigError as error:
        raise ConfigError("\n".join([str(error), *_strategy_problems_beside_others()])) from None
    problems = [*_model_problems(params), *source_problems(params), *_runner_problems(params)]
    problems += _unwatched_keys(paths.PIPELINE)
    problems += [*_strategy_problems(params), *planned_problems(params)]
    fit = _fit_of_data(params, packing)
    problems += fit.problems
    if comparing:
        problems += [*_unwatched_keys(paths.COMPARE_PIPELINE), *_comparison_problems(params)]
    _refuse(problems)
    for warning in fit.warnings:
        logger.warning("%s", warning)
    _warn_of_unwatched_strategies(params, comparing)
    return params


def checked_settings(overrides: Mapping[str, Any], comparing: bool = False) -> Params:
    """Read params.yaml under overrides, without writing them; the files that it names need not exist yet.

    Raises ConfigError with every problem of the settings themselves.
    """
    if overrides:
        read_params()  # reports problems of the file itself
        params = parse_params(yaml.safe_load(overridden_text(overrides)))
    else:
        params = read_params()
    problems = [*_base_problems(params), *_strategy_problems(params), *planned_problems(params)]
    _refuse([*problems, *_comparison_problems(params)] if comparing else problems)
    return params


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


def _model_problems(params: Params) -> list[str]:
    if Path(params.model.path) != paths.BASE_MODEL:
        return [*check_model_folder(params.model.path), *check_trainable(params.model.path)]
    return _base_problems(params)


def _base_problems(params: Params) -> list[str]:
    if Path(params.model.path) != paths.BASE_MODEL:
        return []
    if params.base is None:
        return [
            f"base: missing, and model.path is {paths.BASE_MODEL}; describe the base model, or name your own folder"
        ]
    if unknown := sorted(set(params.base.domains or []) - set(params.training_domains)):
        return [
            f"base.domains: {unknown} are no domains; choose from {sorted(params.training_domains)}, or null for all"
        ]
    return []


def _fit_of_data(params: Params, packing: bool) -> Fit:
    """Return what of model, tokenizer and data does not go together; nothing for a base model that is made to fit."""
    path = params.model.path
    if Path(path) == paths.BASE_MODEL or not (Path(path) / "config.json").is_file():
        return Fit()
    found = [check_length(path, params.data.sequence_length)]
    if packing:
        found += _fit_of_tokenizer(params)
    return Fit([line for each in found for line in each.problems], [line for each in found for line in each.warnings])


def _fit_of_tokenizer(params: Params) -> list[Fit]:
    from velocitune_core.data.borders import BorderError, document_borders, largest_id
    from velocitune_core.model.documents import document_mask_problem
    from velocitune_core.model.tokenizer import load_tokenizer

    path = params.model.path
    try:
        tokenizer = load_tokenizer(path)
    except ModelError as error:
        return [Fit(problems=[str(error)])]
    found = [check_vocabulary(path, largest_id(tokenizer))]
    try:
        document_borders(tokenizer, params.data)
    except BorderError as error:
        found.append(Fit(problems=str(error).splitlines()))
    if params.data.document_mask and (problem := document_mask_problem(path)):
        found.append(Fit(problems=[problem]))
    return found


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
    if unknown := sorted(set(params.compare.retained or []) - set(params.training_domains)):
        problems.append(f"compare.retained: {unknown} are no domains; choose from {sorted(params.training_domains)}")
    return problems


def _runner_problems(params: Params) -> list[str]:
    if params.proxies.runner == "ray" and find_spec("prefect_ray") is None:
        return ["proxies.runner: Ray is not installed; run `pip install -c constraints.txt -e '.[ray]'`, or set local"]
    return []


def _unwatched_keys(pipeline: Path) -> list[str]:
    """Return keys that a dvc.yaml watches and params.yaml omits: DVC cannot see defaults."""
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


def _warn_of_unwatched_strategies(params: Params, comparing: bool) -> None:
    stages = {params.strategy.name: "train" if params.strategy.search is None else "weights"}
    if comparing and params.compare is not None:
        stages = {run.strategy: "comparison/dvc.yaml:compare" for run in params.compare.runs.values()}
    for name, stage in stages.items():
        if ":" in name:
            logger.warning(
                "strategy %s: DVC does not watch %s; after a change of it, or of what it imports, run "
                "`python -m flows.pipeline`, or `dvc repro --force --single-item %s` before `dvc repro`",
                name,
                next(iter(strategy_modules(name).values())),
                stage,
            )
