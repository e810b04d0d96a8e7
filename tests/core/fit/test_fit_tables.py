"""Tables of runs: which columns are read, how two tables are joined, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from run_tables import GOOD, HEADER, swarm, write_table

from velocitune_core import fit_mixture_law
from velocitune_core.fit.command import main
from velocitune_core.fit.csv_file import read_csv_file
from velocitune_core.fit.csv_tables import TableError, read_csv_runs


def named_runs(*names: str) -> list[str]:
    """Return the lines of a table of good runs with these names."""
    return [f"run,{HEADER}", *(f"{name},{row}" for name, row in zip(names, GOOD, strict=True))]


def test_two_tables_are_joined_by_the_column_that_names_runs(tmp_path: Path) -> None:
    weights, losses = swarm()
    runs = [f"run-{number}" for number in range(16)]
    label = {"run": runs, "name": ["swarm"] * 16}
    ratios = write_table(tmp_path / "ratios.csv", label, {**weights})
    order = [int(row) for row in np.random.default_rng(0).permutation(16)]
    metrics = write_table(tmp_path / "metrics.csv", {"run_id": runs, "model": ["30M"] * 16}, {**losses}, order=order)
    read = read_csv_runs([ratios, metrics])
    assert (set(read.weights.columns), set(read.losses.columns)) == (set(weights), set(losses))
    law = fit_mixture_law(read.weights, read.losses)
    np.testing.assert_allclose(law.theta, fit_mixture_law(weights, losses).theta)
    assert read.unused == ["model"] and not read.notes


def two_tables(folder: Path, weights: str, losses: str) -> list[Path]:
    """Write two tables of three runs: columns, separated by commas, of which each has other numbers; equal weights."""
    paths = [folder / "ratios.csv", folder / "metrics.csv"]
    for path, header, step in zip(paths, (weights, losses), (0.0, 1.0), strict=True):
        named = header.startswith("run")
        rows = [[1 + step * row + each / 10 for each in range(header.count(",") + 1)] for row in range(3)]
        cells = [[f"r{row}" if named else rows[row][0], *rows[row][1:]] for row in range(3)]
        path.write_text("\n".join([header, *(",".join(map(str, each)) for each in cells)]))
    return paths


def test_columns_that_are_no_data_by_their_names_are_left_out_of_two_tables(tmp_path: Path) -> None:
    aside = ["seed", "global_step", "wall_hours", "train/tokens", "lr"]
    read = read_csv_runs(two_tables(tmp_path, "run,a,b,seed", f"run,stepping_stones,{','.join(aside)}"))
    assert (read.weights.columns, read.losses.columns) == (["a", "b"], ["stepping_stones"])
    (note,) = read.notes
    assert f"{', '.join(['seed', *aside])}; --weights and --losses can name them" in note
    assert read_csv_runs([tmp_path / "ratios.csv", tmp_path / "metrics.csv"], losses="lr").losses.columns == ["lr"]


def test_columns_that_are_named_as_in_a_single_table_are_the_data_of_two(tmp_path: Path) -> None:
    read = read_csv_runs(two_tables(tmp_path, "run,weight/a,weight/b,rank", "run,loss/a,score"))
    assert (read.weights.columns, read.losses.columns) == (["a", "b"], ["a"])


def test_tables_are_joined_by_position_with_a_note_and_never_if_one_names_its_runs(tmp_path: Path) -> None:
    (note,) = read_csv_runs(two_tables(tmp_path, "a,b", "c,d")).notes
    assert "row by row" in note
    for headers in (("run,a", "c,d"), ("a,b", "run,c")):
        with pytest.raises(TableError, match=r"no column names the runs, as 'run' does in .*\.csv; add one"):
            read_csv_runs(two_tables(tmp_path, *headers))


def test_a_row_ends_at_a_line_break_alone_and_knows_its_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes('run,a\r\n"first\r\nrun",1\r\nform\x0cfeed,2\r\n\r\nof\u2028two,3\n'.encode())
    table = read_csv_file(path)
    assert table.cells("run") == ["first\nrun", "form\x0cfeed", "of\u2028two"]
    assert table.lines == [3, 4, 6]


def test_columns_are_found_by_pattern_and_by_name(tmp_path: Path) -> None:
    table = tmp_path / "runs.tsv"
    table.write_text("the_a\tthe_b\teval/a_loss\teval/web_loss\n0.5\t0.5\t1\t2\n0.4\t0.6\t3\t4\n")
    read = read_csv_runs([table], weights="the_*", losses="eval/*_loss")
    assert read.weights.values == {"a": [0.5, 0.4], "b": [0.5, 0.6]}
    assert read.losses.values == {"a": [1, 3], "web": [2, 4]}
    assert read_csv_runs([table], weights="the_b", losses="eval/a_loss").losses.columns == ["eval/a_loss"]
    assert read.weights.index == ["line 2", "line 3"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty; its first line must name the columns"),
        ([HEADER], "a header and no rows"),
        (["a,b", "0.5,0.5"], "no column is called 'weight/\\*'.*columns are 'a', 'b'.*--weights"),
        (["weight/a,weight/b", "0.5,0.5"], "no column is called 'loss/\\*'"),
        ([HEADER, *GOOD, "0.3,0.7,1.2"], "names 4 columns, but line 5 has 3"),
        ([HEADER, *GOOD, "0.3,0.7,1.2,x"], "runs.csv:5: column 'loss/b' is 'x'; give a number"),
        ([HEADER, *GOOD, "0.3,0.7,1.2,2_1.5"], "runs.csv:5: column 'loss/b' is '2_1.5'"),
        ([HEADER, *GOOD, "0.3,,1.2,2"], "runs.csv:5: column 'weight/b' is empty"),
        ([HEADER, *GOOD, '0.3,0.7,"1,2",2'], "runs.csv:5: column 'loss/a' is '1,2'; write it with a decimal point"),
        (["weight/a,loss/a", "1,2", "1,3"], "2 runs of 1 domain and 1 held-out set\n.*the only domain is 'a'"),
        (["weight/a,weight/a", "1,2"], "columns \\['weight/a'\\] are there twice"),
        ([HEADER, *GOOD[:1]], "different mixtures among the runs: 1; a law needs at least 3"),
        ([HEADER, *GOOD, "0.3,0.7,1.2,nan"], "runs.csv:5: column 'loss/b' is nan; a loss is finite and positive"),
        ([HEADER, *GOOD, "0.3,0.7,-2.0,1"], "runs.csv:5: column 'loss/a' is -2.0; a loss is finite and positive"),
        ([HEADER, *GOOD, "-0.3,1.3,2,1"], "runs.csv:5: column 'weight/a' is -0.3; a weight is finite, and zero or"),
        ([HEADER, *GOOD, "-0.3,1.3,0,inf"], "weight/a.*\nruns.csv:5: column 'loss/a' is 0.*\nruns.csv:5: .*b' is inf"),
        ([HEADER, *GOOD, GOOD[0]], "runs.csv:5: all weights and losses are those of line 2; one run would count twice"),
        (
            [HEADER, *GOOD, "0.3,0.4,1.2,2"],
            "runs.csv:5: the weights .weight/a, weight/b. sum to 0.7, and .* to 1;",
        ),
        (
            named_runs("r1", "r2", "r1"),
            "runs.csv:4: run 'r1' is there already, in line 2, with other values: rename",
        ),
        (
            [*named_runs("r1", "r2", "r3"), f"r2,{GOOD[1]}"],
            "csv:5: run 'r2' .* line 3, with the same values: leave",
        ),
        (
            [*named_runs("r1", "r2", "r3"), f"r4,{GOOD[1]}"],
            "csv:5: all weights and losses .* of line 3, run 'r2'",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_named(
    lines: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(lines))
    assert main([str(table), "--out", str(tmp_path / "out")]) == 2
    problem = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert re.search(message, problem, flags=re.DOTALL), problem
    assert not list(tmp_path.glob("out/*"))


def test_a_run_in_one_of_two_tables_is_named_with_its_line(tmp_path: Path) -> None:
    ratios, metrics = tmp_path / "ratios.csv", tmp_path / "metrics.csv"
    ratios.write_text("run,a,b\nr1,0.5,0.5\nr2,0.4,0.6\n")
    metrics.write_text("run,c\nr2,1\nr3,2\n")
    both = r"ratios\.csv:2: run 'r1' has no losses in .*\n.*metrics\.csv:3: run 'r3' has no weights"
    with pytest.raises(TableError, match=both):
        read_csv_runs([ratios, metrics])


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("weight/a,weight/b,val/a,val/b,step", {}, "--losses 'val/\\*'"),
        ("weight/a,weight/b,l1,l2", {}, "--losses '\\*_loss'"),
        ("run,share_a,share_b,val/a,val/b", {}, "--weights 'share_\\*'"),
        ("share_a,share_b,val/a,val/b", {"weights": "share_*"}, "--losses 'val/\\*'"),
        ("weigth/a,weigth/b,w/x,w/y,loss/a", {}, "--weights 'weigth/\\*'"),
        ("weight/a,weight/code,loss/a", {"weights": "weight/a,weight/cod"}, "--weights 'weight/code'"),
    ],
)
def test_columns_that_are_there_are_suggested(
    header: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("\n".join([header, ",".join(["0.5"] * len(header.split(",")))]))
    with pytest.raises(TableError, match=f"such as {message}$"):
        read_csv_runs([table], **options)


def test_a_column_that_is_misnamed_is_not_left_out_silently(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    for header in ("weight/a,weight/b,wieght/c,loss/a,hours", "run,weight/a,weight/b,weights/c,loss/a"):
        table.write_text("\n".join([header, "1,2,3,4,5"]))
        (note,) = read_csv_runs([table]).notes
        assert note.endswith("is not used; did you mean 'weight/c'?")


def test_a_missing_file_and_a_third_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"nowhere\.csv: no such file"):
        read_csv_runs([tmp_path / "nowhere.csv"])
    with pytest.raises(TableError, match="3 tables are given"):
        read_csv_runs([tmp_path / name for name in "abc"])


def test_a_misspelt_column_is_named_before_what_follows_from_it(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("wieght/a,weight/b,weight/c,loss/a\n0.5,0.3,0.2,1.5\n0.2,0.3,0.5,1.4\n")
    with pytest.raises(TableError) as refused:
        read_csv_runs([table])
    first, *others = str(refused.value).splitlines()
    assert first == "column 'wieght/a' is not used; did you mean 'weight/a'?" and "sum to" in others[0]
