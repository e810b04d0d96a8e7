"""The check of a folder's weights takes no memory for them: a model of any size is opened before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedModel

from velocitune_core.model import complete
from velocitune_core.model.complete import Report, check_weights, compare_weights
from velocitune_core.model.fits_data import Fit


def test_the_model_is_on_the_meta_device(tiny_inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[PreTrainedModel] = []

    def compare(path: str, model: PreTrainedModel, loaded: Report) -> Fit:
        opened.append(model)
        return compare_weights(path, model, loaded)

    monkeypatch.setattr(complete, "compare_weights", compare)
    assert check_weights(str(tiny_inputs / "model")) == Fit()
    (model,) = opened
    assert {each.device.type for each in model.parameters()} == {"meta"}
