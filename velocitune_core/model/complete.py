"""Whether a folder has every weight of its model, in its shape, and none that the model would leave out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from velocitune_core.model.fits_data import Fit
from velocitune_core.model.folder import ModelError
from velocitune_core.model.headers import is_made_anew, shown
from velocitune_core.model.tokenizer import LOADING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Report = Mapping[str, Any]  # of transformers on a loading: names of weights by what became of them
_PUT_TOGETHER = re.compile(r"destined for ([\w.]+)\.(?=\s|$)")  # of several tensors, as the experts of a layer are
_LONGEST = 300  # characters of another's message


def check_weights(path: str) -> Fit:
    """Match the names and shapes in a folder's files with its model, as loading it would, without reading any value.

    The model is on the meta device, so that one of any size takes seconds and no memory. Raises ModelError if no model
    can be made of the folder's config.json.
    """
    model, loaded = load_with_report(path, device_map="meta", ignore_mismatched_sizes=True)  # which are reported
    return compare_weights(path, model, loaded)


def load_with_report(path: str, **options: Any) -> tuple[PreTrainedModel, Report]:
    """Load a folder's causal language model, and what transformers found in it; runs no code of the folder.

    Raises ModelError if the folder cannot be loaded.
    """
    messages: list[str] = []
    try:
        with LOADING, _reported_to(messages):
            from transformers import AutoModelForCausalLM

            model, report = AutoModelForCausalLM.from_pretrained(
                path,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                **options,
            )
            return model, report
    except Exception as error:  # of transformers, safetensors, or a package that the architecture needs
        raise ModelError(_cannot_load(path, error, messages)) from None


def compare_weights(path: str, model: PreTrainedModel, loaded: Report) -> Fit:
    """Return what is wrong with the weights that a model was loaded from, and what of them it has no place for.

    Args:
        loaded: from `from_pretrained(output_loading_info=True)`.
    """
    fit = Fit()
    missing = sorted(loaded["missing_keys"])
    unexpected = sorted(name for name in loaded["unexpected_keys"] if not is_made_anew(name))
    stray = [name for name in unexpected if _is_inside(name, model)]
    if missing:
        beside = f", and has {shown(unexpected)} in their place" if unexpected else ""
        fit.problems.append(
            f"model.path: {path} lacks {len(missing)} weights of its model ({shown(missing)}){beside}; they would be "
            "random. Save the whole model under its own names: save_pretrained of the class that AutoModelForCausalLM "
            "gives, unwrapped"
        )
    elif stray:
        fit.problems.append(
            f"model.path: {path} has {len(stray)} weights inside the model that its config.json has no place for "
            f"({shown(stray)}), so it would compute something else; save config.json and weights of one model"
        )
    elif unexpected:
        fit.warnings.append(
            f"model.path: {path} has {len(unexpected)} weights that a causal language model has no place for "
            f"({shown(unexpected)}): they are neither trained nor saved"
        )
    if sizes := [f"{name}: {_shape(stored)}, not {_shape(made)}" for name, stored, made in _mismatched(loaded)]:
        fit.problems.append(
            f"model.path: {path} has {len(sizes)} weights of another size than its config.json says ({shown(sizes)}); "
            "save config.json and weights of one model"
        )
    return fit


def _cannot_load(path: str, error: Exception, messages: list[str]) -> str:
    """Return why a folder is no causal language model, in a line with what to do where that is known."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return (
            f"model.path: {path} needs code of its own (auto_map in its config.json), and none of a folder's code is "
            "run; give a model that transformers has a class for"
        )
    if "does not recognize this architecture" in text:
        name = re.search(r"model type `(.+?)`", text)
        return (
            f"model.path: {path}/config.json: model_type {name[1] if name else ''!r} is unknown to the installed "
            "transformers; update transformers if a later version has it"
        )
    if "for this kind of AutoModel" in text:
        name = re.search(r"\.(\w+)'>", text)
        return (
            f"model.path: {path}/config.json is of another kind of model than a causal language model "
            f"({name[1] if name else text}); give one that predicts the next token"
        )
    if parts := sorted(set(_PUT_TOGETHER.findall("\n".join(messages)))):
        return (
            f"model.path: {path} lacks parts of {shown(parts)}, or has them in unlike sizes; download it again, or "
            "save the model again with save_pretrained"
        )
    return f"model.path: cannot load the model of {path}: {text[:_LONGEST] or type(error).__name__}"


def _is_inside(name: str, model: PreTrainedModel) -> bool:
    """Return whether a stored weight belongs to a part that the model has, or to one more of its layers."""
    modules = {module for module, _ in model.named_modules() if module}
    prefix = model.base_model_prefix
    candidates = (name, f"{prefix}.{name}") if prefix else (name,)
    for each in candidates:
        parents = each.split(".")[:-1]
        owner = ".".join(parents)
        layers = next((n for n in range(len(parents)) if parents[n].isdigit()), None)
        if owner in modules or (layers is not None and ".".join(parents[:layers]) in modules):
            return True
    return False


def _mismatched(loaded: Report) -> Iterable[tuple[str, Any, Any]]:
    return sorted(loaded.get("mismatched_keys") or [], key=lambda each: each[0])


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size))


@contextmanager
def _reported_to(messages: list[str]) -> Iterator[None]:
    """Collect what transformers logs, its table of the same problems among it, and show no progress bars."""
    from transformers.utils import logging as library

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logger = logging.getLogger("transformers")
    passed_on = logger.propagate  # to the root's handlers, as transformers does where CI is set
    library.disable_progress_bar()
    library.disable_default_handler()
    library.disable_propagation()
    library.add_handler(collector)
    try:
        yield
    finally:
        library.remove_handler(collector)
        logger.propagate = passed_on
        library.enable_default_handler()
