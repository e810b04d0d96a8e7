"""The end of a pipeline on the terminal, and its answer on the run in Prefect's UI."""

from __future__ import annotations

import re
from typing import Any

import pytest
import result_samples as samples
from comparison_samples import three_seeds
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.views.summary import print_comparison, print_summary, publish_answer
from velocitune_core.config import Tracking
from velocitune_core.report.headline import answer, comparison_answer
from velocitune_core.report.summary import formatted_rows


def test_the_result_of_every_domain_the_answer_and_the_way_to_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    results = samples.report_data()
    print_summary(results, Tracking())
    captured = capsys.readouterr()
    assert captured.out == ""  # standard output is for what another program reads
    lines = captured.err.splitlines()
    for row in formatted_rows(results):
        line = next(line for line in lines if line.startswith(f"{row['domain']} "))
        assert row["reached"] in line and row["target"] in line
    assert f"answer: {answer(results).sentence}" in lines
    assert "flagged" not in captured.err  # the stage of the targets warned of them
    for place in ("report/index.html", "models/trained", "make serve", "workflowType=machine_learning"):
        assert place in captured.err


def test_the_link_to_prefect_is_of_the_server_that_the_run_is_on(capsys: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4321/api"}):
        print_summary(samples.report_data(), Tracking())
    assert "Prefect  http://127.0.0.1:4321" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_whole_in_a_terminal_of_any_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("TERM", "xterm")
    print_summary(samples.report_data(), Tracking())
    table, _, rest = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err).partition("\n\n")
    lines = table.splitlines()
    assert len(lines) == 3 + len(samples.SEVEN)  # title, head, rule: no cell is broken over lines
    assert all(len(line.rstrip()) <= width for line in [*lines, *rest.splitlines()] if "http" not in line)
    assert ("gap closed" in table, "epochs" in table) == (True, width >= 120)


def test_a_comparison_ends_with_its_answer_and_its_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_comparison(three_seeds(), Tracking())
    shown = capsys.readouterr().err
    assert comparison_answer(three_seeds()) in shown and "comparison/report/index.html" in shown


def test_prefects_run_gets_sentence_table_figure_mixture_and_links(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def create(text: str, **names: str) -> None:
        given.append(names | {"text": text})

    monkeypatch.setattr("tasks.views.prefect_artifacts.create_markdown_artifact", create)
    results = samples.report_data()
    publish_answer(results, Tracking(uri="http://tracking.example"))
    (artifact,) = given
    text = artifact["text"]
    assert artifact["key"] == "velocitune-answer" and text.startswith(answer(results).sentence)
    assert "| general | " in text and text.count("\n| ") == 2 + len(samples.SEVEN)
    assert "```mermaid\npie showData" in text and '"code" : 24.1' in text
    assert answer(results).mixture_yaml in text
    assert "[MLflow](http://tracking.example/#/experiments" in text and "report/index.html)" in text
