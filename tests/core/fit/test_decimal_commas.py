"""Tables with semicolons and decimal commas, as spreadsheets of many languages write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from velocitune_core.fit.command import main
from velocitune_core.fit.csv_tables import TableError, read_csv_runs

HEADER = "run,weight/a,weight/b,loss/a,loss/b,version"
ROWS = ["r 1,0.5,0.5,1.0,2.0,1.2", "r 2,0.4,0.6,11e-1,1.9,1.3", "r 3,1,0,1.2,1.85,1.3", "r 4,0.2,0.8,1.3,1.8,2.0"]


def with_commas(line: str, delimiter: str) -> str:
    return line.replace(",", delimiter).replace(".", ",")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_give_the_same_runs(tmp_path: Path, delimiter: str, capsys: pytest.CaptureFixture[str]) -> None:
    (with_points := tmp_path / "points.csv").write_text("\n".join([HEADER, *ROWS]))
    table = tmp_path / "commas.csv"
    table.write_text("\n".join(with_commas(line, delimiter) for line in [HEADER, *ROWS]), encoding="utf-8-sig")
    expected, found = read_csv_runs([with_points]), read_csv_runs([table])
    assert (found.weights, found.losses) == (expected.weights, expected.losses)
    (note,) = found.notes
    assert note == f"{table}: commas are read as decimal points, in weight/a, weight/b, loss/a, loss/b, version"
    assert expected.notes == []
    assert main([str(table), "--out", str(tmp_path / "fit"), "--bootstrap", "0"]) == 0
    assert note in capsys.readouterr().err


def test_a_column_with_commas_and_points_is_refused(tmp_path: Path) -> None:
    """1.234 may be a thousand there."""
    table = tmp_path / "runs.csv"
    table.write_text("weight/a;weight/b;loss/a\n0,5;0,5;1,5\n0,4;0,6;1.234\n0,3;0,7;1,4\n")
    with pytest.raises(TableError, match=r"runs\.csv:2: column 'loss/a' is '1,5'; write it with a decimal point"):
        read_csv_runs([table])


def test_decimal_commas_between_commas_are_refused_once(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("weight/a,weight/b,loss/a\n0,5,0,5,1,5\n0,4,0,6,1,6\n")
    with pytest.raises(TableError, match=r"names 3 columns, but line 2 has 6, line 3 has 6; .* decimals with a point"):
        read_csv_runs([table])


def test_the_most_frequent_separator_of_the_header_is_taken(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("weight/a;weight/b;loss/a, nats\n0,5;0,5;1,5\n0,4;0,6;1,6\n")
    assert read_csv_runs([table]).losses.values == {"a, nats": [1.5, 1.6]}


@pytest.mark.parametrize("before", ["\n", "sep=;\n", "Sep=;\r\n"])
def test_a_blank_line_and_that_of_excel_may_stand_before_the_header(tmp_path: Path, before: str) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(f"{before}weight/a;weight/b;loss/a\n0,5;0,5;1,5\n0,4;0,6;1,6\n")
    assert read_csv_runs([table]).losses.values == {"a": [1.5, 1.6]}
