"""Names of MLflow's runs; that runs have them is seen in test_tasks_mlflow_runs.py."""

from __future__ import annotations

from typing import Any

from tasks.views.mlflow_names import flatten, other_settings
from velocitune_core.config import parse_params


def test_settings_that_differ_only_in_what_is_not_shown_have_a_name_of_their_own(settings: dict[str, Any]) -> None:
    source = settings["domains"]["code"]["source"]
    first, other = (
        parse_params({**settings, "domains": {**settings["domains"], "code": {"source": {**source, "path": path}}}})
        for path in ("hf://datasets/a/b?token=one", "hf://datasets/a/b?token=two")
    )
    logged = {key: str(value) for key, value in flatten(first.shown(), ".")}
    assert first != other and other_settings(other, logged, "0123456789abcdef") == "settings 012345"
