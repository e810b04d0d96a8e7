"""Files that a stage reads and that are not there are named with the commands that make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.workspace.stage_files import MissingInputError, check_inputs, how_to_make
from velocitune_core.config import parse_params


@pytest.mark.parametrize(
    ("stage", "reads"), [("prepare", ["data/embedded", "models/base"]), ("base", ["data/embedded"])]
)
def test_a_stage_names_the_commands_that_make_the_embedded_text_and_model(
    workspace: Path, settings: dict[str, Any], stage: str, reads: list[str]
) -> None:
    made_by = {"data/embedded": "corpus", "models/base": "base"}
    check_inputs(stage, parse_params(settings))  # text and model of one's own are looked at elsewhere
    settings["data"]["path"], settings["model"]["path"] = "data/embedded", "./models/base"
    settings["base"] = {"training": settings["training"]}
    with pytest.raises(MissingInputError) as refused:
        check_inputs(stage, parse_params(settings))
    _, *lines = str(refused.value).splitlines()
    assert lines == [f"  {path}: make it with `python -m flows.{made_by[path]}`" for path in reads]
    for path in reads:
        Path(path).mkdir(parents=True)
    check_inputs(stage, parse_params(settings))


def test_the_command_that_makes_a_folder() -> None:
    assert how_to_make(Path("models/trained")) == "python -m flows.train"
    assert how_to_make(Path("./models/base")) == "python -m flows.base"
    assert how_to_make(Path("models/mine")) == how_to_make(Path("models")) == ""
