"""The model that model.path names, checked before any work: its folder at every start, opened once in each state."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import velocitune_core.model
from tasks.workspace import paths
from tasks.workspace.base_borders import border_problems
from tasks.workspace.home import missing_in_copy
from tasks.workspace.made_by_stages import made_by_a_stage
from velocitune_core.config import Params
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.files import file_sha256, write_text
from velocitune_core.model.fits_data import Fit, check_length, check_vocabulary
from velocitune_core.model.folder import FAST_TOKENIZER, ModelError, has_tokenizer, look_into_folder
from velocitune_core.model.headers import lfs_pointers
from velocitune_core.model.opened import config_opens, open_model
from velocitune_core.model.tokenizer import file_problems, load_tokenizer
from velocitune_core.model.tokenizer_vocabulary import absent_tokens, vocabulary_problems
from velocitune_core.model.trainable import check_trainable
from velocitune_core.spelling import with_nearest

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CHECKS = Path(velocitune_core.model.__file__).parent  # all of them but those of this file


def model_fit(params: Params) -> Fit:
    """Return every problem of the model, and of it with its tokenizer and the data; warnings too.

    Headers are read each time. What needs transformers, or every weight, takes seconds, so it is done once for each
    state of the folder and of the settings that it depends on, and `.velocitune` keeps what was found.
    """
    path = params.model.path
    if Path(path) == paths.BASE_MODEL:
        return Fit(problems=base_problems(params))
    if made := made_by_a_stage(Path(path)):
        return Fit(
            problems=[
                f"model.path: {made}, and the pipeline cannot start from what it makes; copy the model to another "
                "folder, such as models/mine, and name that"
            ]
        )
    if lost := missing_in_copy(Path(path)):
        return Fit(problems=[f"model.path: {lost}"])
    stored, untrainable = look_into_folder(path), check_trainable(path)
    fit = Fit(problems=[*stored.problems, *untrainable])
    if not Path(path).is_dir() or lfs_pointers(path):
        return fit
    _add(fit, check_length(path, params.data.sequence_length))
    state = _state(params)
    if not fit.problems and (found := _found_before(state)) is not None:
        fit.warnings += found
        return fit
    if not stored.problems and not untrainable:
        length, mask = params.data.sequence_length, params.data.document_mask
        _add(fit, open_model(path, stored.tensors, document_mask=mask, sequence_length=length))
    if has_tokenizer(path):
        _add(fit, _fit_of_tokenizer(params) if config_opens(path) else Fit(problems=file_problems(path)))
    if not fit.problems:
        write_text(paths.OPENED_MODEL, json.dumps({"state": state, "warnings": fit.warnings}))
    return fit


def length_problems(params: Params) -> list[str]:
    """Return whether rows are longer than the learned positions of a model that is on this machine."""
    path = params.model.path
    mine = Path(path) != paths.BASE_MODEL and Path(path).is_dir() and not lfs_pointers(path)
    return check_length(path, params.data.sequence_length).problems if mine else []


def folder_problems(params: Params) -> list[str]:
    """Return what `model_fit` finds by configuration and tokenizer alone, as far as they are on this machine.

    A plan needs no more than the configuration, so weights may be missing, and a model of the hub altogether.
    """
    path = params.model.path
    if Path(path) == paths.BASE_MODEL:
        return []
    if not Path(path).is_dir():
        return [] if is_hub_id(path) else look_into_folder(path).problems
    if lfs_pointers(path):
        return []
    fits = has_tokenizer(path) and config_opens(path)
    return [*check_trainable(path), *(_fit_of_tokenizer(params).problems if fits else [])]


def is_hub_id(model: str) -> bool:
    """Return whether a model's name can be one of the hub: `models/…` is always a folder here."""
    return HUB_ID.fullmatch(model) is not None and Path(model).parts[0] != paths.BASE_MODEL.parts[0]


def same_tokenizer(one: str, other: str) -> bool:
    """Return whether two model folders have tokenizers that give the same ids; True if one cannot be loaded."""
    files = [Path(each) / FAST_TOKENIZER for each in (one, other)]
    if all(each.is_file() for each in files) and files[0].read_bytes() == files[1].read_bytes():
        return True
    try:
        return tokenizer_digest(load_tokenizer(one)) == tokenizer_digest(load_tokenizer(other))
    except ModelError:  # which is a problem of its own
        return True


def base_problems(params: Params) -> list[str]:
    """Return why the settings do not describe the base model that the pipeline is to make, if it is to make one."""
    if Path(params.model.path) != paths.BASE_MODEL:
        return []
    if params.base is None:
        return [
            f"base: missing, and model.path is {paths.BASE_MODEL}; describe the base model, or name your own folder"
        ]
    known, problems = sorted(params.training_domains), border_problems(params.data)
    if unknown := sorted(set(params.base.domains or []) - set(known)):
        problems.append(
            f"base.domains: {with_nearest(unknown, known)} are no domains; choose from {', '.join(known)}, or "
            "null for all"
        )
    return problems


def _fit_of_tokenizer(params: Params) -> Fit:
    from velocitune_core.data.borders import BorderError, document_borders, largest_packed_id

    path = params.model.path
    try:
        tokenizer = load_tokenizer(path)
    except ModelError as error:
        return Fit(problems=[str(error)])
    fit, beside = Fit(problems=vocabulary_problems(path)), list[str]()
    try:
        borders = document_borders(tokenizer, params.data)
        fit.problems += absent_tokens(path, [*borders.start.tokens, *borders.end.tokens])
    except BorderError as error:
        beside = str(error).splitlines()
    if not fit.problems:  # from which ids beyond the embeddings follow
        _add(fit, check_vocabulary(path, largest_packed_id(tokenizer, params.data)))
    fit.problems += beside
    return fit


def _add(fit: Fit, other: Fit) -> None:
    fit.problems += other.problems
    fit.warnings += [each for each in other.warnings if each not in fit.warnings]


def _state(params: Params) -> str:
    """Return a digest of all that decides what opening the model finds.

    That is its files, the settings of data, transformers and the checks themselves.
    """
    files = sorted(
        (each.name, each.stat().st_size, each.stat().st_mtime_ns)
        for each in Path(params.model.path).iterdir()
        if each.is_file()
    )
    checks = [file_sha256(each) for each in [Path(__file__), *sorted(_CHECKS.rglob("*.py"))]]
    content = [params.model.path, files, params.data.model_dump(mode="json"), version("transformers"), checks]
    return sha256(json.dumps(content).encode()).hexdigest()


def _found_before(state: str) -> list[str] | None:
    """Return the warnings of a model that was opened in this state; None if it was not."""
    try:
        record = json.loads(paths.OPENED_MODEL.read_text(encoding="utf-8"))
        return list(record["warnings"]) if record["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
