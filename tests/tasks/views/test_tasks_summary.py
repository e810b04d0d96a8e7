"""The end of a pipeline on the terminal."""

from __future__ import annotations

import pytest
import result_samples as samples

from tasks.views.summary import print_summary
from velocitune_core.report.summary import formatted_rows, key_figures


def test_the_result_of_every_domain_and_the_way_to_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    results = samples.report_data()
    print_summary(results)
    captured = capsys.readouterr()
    assert captured.out == ""  # standard output is for what another program reads
    lines = captured.err.splitlines()
    for row in formatted_rows(results):
        line = next(line for line in lines if f" {row['domain']} " in line)  # key figures name some domains too
        assert row["reached"] in line and row["target"] in line
    for label, text in key_figures(results).items():
        assert f"{label}: {text}" in lines
    for place in ("report/index.html", "models/trained", "make serve"):
        assert place in captured.err
