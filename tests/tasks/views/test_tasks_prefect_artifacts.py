"""A table that Prefect takes, and one that it does not."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import Any

import pytest

from tasks.views.prefect_artifacts import publish_table

ROWS = [MappingProxyType({"domain": "code", "reached": "3.30"}), MappingProxyType({"domain": "law", "reached": "3.10"})]


def test_rows_are_published_as_plain_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Any, dict[str, str]]] = []
    monkeypatch.setattr(
        "tasks.views.prefect_artifacts.create_table_artifact", lambda table, **names: taken.append((table, names))
    )
    publish_table("results", "Held-out losses", ROWS)
    assert taken == [([dict(row) for row in ROWS], {"key": "velocitune-results", "description": "Held-out losses"})]
    assert all(type(row) is dict for row in taken[0][0])  # what Prefect can serialise


def test_a_server_that_refuses_a_table_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to 127.0.0.1:4200")

    monkeypatch.setattr("tasks.views.prefect_artifacts.create_table_artifact", refuse)
    with caplog.at_level(logging.WARNING, "tasks.views.prefect_artifacts"):
        publish_table("results", "Held-out losses", ROWS)
    assert caplog.messages == ["Prefect did not take the table results: no route to 127.0.0.1:4200"]
