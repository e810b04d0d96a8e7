"""Inputs that this user may not look at are refused by setting, before any work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace.preflight import checked_params, checked_settings
from velocitune_core.config import ConfigError


@pytest.mark.parametrize("check", [checked_params, lambda: checked_settings({})])
@pytest.mark.parametrize(
    ("closed", "mode", "named"),
    [
        ("closed", 0, ["data.path: closed/raw", "model.path: closed/model", "mixture.swarm.model: closed/model"]),
        ("closed/model", 0, ["model.path: closed/model", "mixture.swarm.model: closed/model"]),
        ("closed/model", 0o644, ["model.path: closed/model", "mixture.swarm.model: closed/model"]),  # not entered
        ("closed/raw", 0, ["data.path: closed/raw"]),
        ("closed/raw/code.jsonl", 0, ["domains.code.source.path: closed/raw/code.jsonl"]),
    ],
)
def test_inputs_that_are_closed_to_the_user_are_named(
    workspace: Path, settings: dict[str, Any], check: Callable[[], object], closed: str, mode: int, named: list[str]
) -> None:
    for name in ("model", "raw"):
        Path(f"closed/{name}").mkdir(parents=True)
    Path("closed/raw/code.jsonl").touch()
    settings["model"]["path"], settings["data"]["path"] = "closed/model", "closed/raw"
    settings["mixture"]["swarm"] = {"model": "closed/model"}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    before = Path(closed).stat().st_mode
    user = os.geteuid()
    if user == 0:  # whom permissions do not stop
        for folder in (".", "closed", "closed/model", "closed/raw"):
            Path(folder).chmod(0o777)
    Path(closed).chmod(mode)
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError) as refused:
            check()
    finally:
        os.seteuid(user)
        Path(closed).chmod(before)
    _, *lines = str(refused.value).splitlines()
    assert lines == [f"  {each} cannot be opened: Permission denied; allow it, or name another place" for each in named]


def test_a_link_to_itself_is_named(workspace: Path, settings: dict[str, Any]) -> None:
    Path("raw").mkdir()
    Path("raw/code.jsonl").symlink_to("code.jsonl")
    settings["data"]["path"] = "raw"
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=r"raw/code.jsonl cannot be opened: Too many .*links; name another place"):
        checked_settings({})
