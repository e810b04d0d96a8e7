"""A model folder opened before any work: what loading and training it would show hours later, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from velocitune_core.model.finite import finite_problems
from velocitune_core.model.fits_data import Fit
from velocitune_core.model.folder import ModelError
from velocitune_core.model.headers import StoredTensor


def config_opens(path: str) -> bool:
    """Return whether transformers reads a folder's config.json; its tokenizer's class is taken from that, too."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception:  # as many kinds as there are settings
        return False
    return True


def open_model(path: str, tensors: Sequence[StoredTensor], *, document_mask: bool, sequence_length: int) -> Fit:
    """Try a folder in which `look_into_folder` found no problem, without loading its weights.

    Its names and shapes are matched with the model of config.json, its weights are searched for values that are not
    finite, in pieces, and a miniature of its architecture is tried for causality, for rows of
    `sequence_length` tokens and, if wanted, for the document mask.
    """
    from velocitune_core.model.causality import causality_problem
    from velocitune_core.model.complete import check_weights
    from velocitune_core.model.documents import document_mask_problem
    from velocitune_core.model.positions import positions_fit

    try:
        fit = check_weights(path)
    except ModelError as error:  # no model can be made of it, so that nothing below would say more
        return Fit(problems=[str(error)])
    fit.problems += finite_problems(path, tensors)
    acausal = causality_problem(path)
    tried = [acausal, document_mask_problem(path) if document_mask and acausal is None else None]
    length = positions_fit(path, sequence_length)
    fit.problems += [problem for problem in [*tried, *length.problems] if problem is not None]
    fit.warnings += length.warnings
    return fit
