"""The tokens around every document of a base model, whose tokenizer is not trained yet."""

from __future__ import annotations

from velocitune_core.config import Data
from velocitune_core.contracts import DocumentBorders
from velocitune_core.data.borders import BorderError, document_borders
from velocitune_core.model.build import train_tokenizer

_VOCABULARY = 1000  # bytes, the special token, and all that training on the named tokens can add


def borders_before_training(data: Data) -> DocumentBorders:
    """Return what the packing will put around documents, from the special token that every base's tokenizer has.

    Another token that the settings name may become one of the tokenizer's own by its training, so the tokenizer here is
    trained on these names: what is no single token then never is one. Raises BorderError for settings that cannot work.
    """
    named = [each for each in (data.document_start, data.document_end) if each is not None]
    return document_borders(train_tokenizer(named, _VOCABULARY), data)


def border_problems(data: Data) -> list[str]:
    """Return why no document of a base can have the borders of the settings; empty if they are possible."""
    if (data.document_start, data.document_end, data.document_mask) == ("auto", "auto", False):
        return []  # nothing to try, which would import transformers
    try:
        borders_before_training(data)
    except BorderError as error:
        return str(error).splitlines()
    return []
