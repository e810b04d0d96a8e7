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
def test_inputs_in_a_folder_that_is_closed_to_the_user_are_named(
    workspace: Path, settings: dict[str, Any], check: Callable[[], object]
) -> None:
    for name in ("model", "raw"):
        Path(f"closed/{name}").mkdir(parents=True)
    settings["model"]["path"], settings["data"]["path"] = "closed/model", "closed/raw"
    settings["mixture"]["swarm"] = {"model": "closed/model"}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    Path("closed").chmod(0)
    user = os.geteuid()
    if user == 0:  # whom permissions do not stop
        Path().chmod(0o777)
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError) as refused:
            check()
    finally:
        os.seteuid(user)
        Path("closed").chmod(0o700)
    named = {"data.path": "closed/raw", "model.path": "closed/model", "mixture.swarm.model": "closed/model"}
    named |= {f"domains.{name}.source.path": f"closed/raw/{name}.jsonl" for name in ("code", "law")}
    _, *lines = str(refused.value).splitlines()
    assert set(lines) == {
        f"  {field}: {path} cannot be opened: Permission denied; allow it, or name another place"
        for field, path in named.items()
    }
