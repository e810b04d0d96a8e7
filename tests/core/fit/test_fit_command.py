"""`velocitune fit`: from tables of runs to weights, evidence and a page; what is wrong with a table is named."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_swarm import draw_swarm

from velocitune_core import Objective, fit_mixture_law, optimise_mixture
from velocitune_core.contracts import StartingWeights
from velocitune_core.fit.command import EXAMPLES, main
from velocitune_core.fit.csv_file import read_csv_file
from velocitune_core.fit.csv_tables import TableError, read_csv_runs
from velocitune_core.fit.objective_file import read_objective
from velocitune_core.mixture_law import explain
from velocitune_core.mixture_law.mixture_plan import Gain, Interval

HEADER = "weight/a,weight/b,loss/a,loss/b"
SMALL = (
    "The recommended weights are predicted to be 0.005 nats better than uniform, of the 0.006 that are possible at "
    "most; training under them costs no more."
)
GOOD = ["0.5,0.5,1.0,2.0", "0.4,0.6,1.1,1.9", "0.3,0.7,1.2,1.85"]


def named_runs(*names: str) -> list[str]:
    """Return the lines of a table of good runs with these names."""
    return [f"run,{HEADER}", *(f"{name},{row}" for name, row in zip(names, GOOD, strict=True))]


def swarm() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return weights and losses of 16 runs of four domains, by name."""
    return draw_swarm(3, runs=16, domains=4, sets=4).columns


def write_table(path: Path, *columns: dict[str, object], order: list[int] | None = None) -> Path:
    """Write columns as CSV, with the rows in `order`."""
    table = {name: list(values) for each in columns for name, values in each.items()}  # type: ignore[call-overload]
    rows = list(zip(*table.values(), strict=True))
    rows = rows if order is None else [rows[row] for row in order]
    path.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def named(what: str, columns: dict[str, np.ndarray]) -> dict[str, object]:
    return {f"{what}/{name}": values for name, values in columns.items()}


def test_a_table_gives_what_the_library_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, losses = swarm()
    table = write_table(tmp_path / "runs.csv", named("weight", weights), named("loss", losses), {"seed": [1] * 16})
    objective = tmp_path / "objective.yaml"
    objective.write_text(
        "average: macro\ninitial_weights: {domain0: 0.4, domain1: 0.3, domain2: 0.2, domain3: 0.1}\n"
        "averages_worse_than_static: {by_size: 0.01}\n"
    )
    out = tmp_path / "out dir é"
    assert main([str(table), "--objective", str(objective), "--out", str(out), "--bootstrap", "8"]) == 0
    plan = optimise_mixture(fit_mixture_law(weights, losses, bootstrap=8), read_objective(objective))
    found = StartingWeights.read(out / "weights.json")
    assert found.domain_weights == pytest.approx(plan.weights, abs=2e-4)
    assert sum(found.domain_weights.values()) == pytest.approx(1, abs=1e-9)
    written = json.loads((out / "plan.json").read_text())
    assert written["plan"]["average"] == "macro" and written["law"]["runs"] == 16
    assert written["plan"]["weights"] == pytest.approx(plan.weights)
    assert set(written["law"]["evidence"]) == set(losses)
    assert "Which mixture to train on" in (out / "plan.html").read_text()
    output, messages = capsys.readouterr()
    assert "Recommended: " in output and "error (mean's)" in output
    assert "16 runs of 4 domains" in messages and f"held-out sets: {', '.join(losses)}\n" in messages
    assert "not used: seed" in messages
    assert f"velocitune export --to NAME --from '{out}/weights.json'\n" in messages


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


@pytest.mark.parametrize("name", ["weights.json", "plan.html"])
def test_files_of_something_else_are_not_replaced(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("\n".join([HEADER, *GOOD]))
    of_the_pipeline = StartingWeights(strategy="planned", found_by="planned", domain_weights={"a": 1.0})
    of_the_pipeline.write(tmp_path / name)
    before = (tmp_path / name).read_text()
    assert main([str(table), "--bootstrap", "0", "--out", str(tmp_path)]) == 2
    assert f"has {name}, not from `velocitune fit`" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == before
    again = [str(table), "--bootstrap", "0", "--out", str(tmp_path / "fit")]
    assert (main(again), main(again)) == (0, 0)


def test_a_folder_with_the_name_of_a_result_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, kept = tmp_path / "runs.csv", tmp_path / "fit/plan.json/kept"
    table.write_text("\n".join([HEADER, *GOOD]))
    command = [str(table), "--bootstrap", "0", "--out", str(tmp_path / "fit")]
    assert main(command) == 0
    kept.parent.unlink()
    kept.parent.mkdir()
    kept.touch()
    (tmp_path / "fit/plan.html").write_text("")
    assert main(command) == 2
    assert "plan.json is a folder, which no file replaces" in capsys.readouterr().err
    assert kept.exists() and (tmp_path / "fit/plan.html").read_text() == "", "nothing was written"


def test_options_that_cannot_be_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("\n".join([HEADER, *GOOD]))
    assert main([str(table), "--out", str(table)]) == 2
    assert f"--out {table}: {table} is no folder, so that nothing can be in it; give" in capsys.readouterr().err
    assert main([str(table), "--out", str(table / "below")]) == 2
    assert f"--out {table}/below: {table} is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(table), "--seed", "-1"])
    assert "argument --seed: '-1' is no whole number from 0" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("avrage: macro", "unknown field 'avrage'; did you mean average?"),
        ("initial_domain_weights: {a: 1}", "did you mean initial_weights?"),
        ("[macro]", "holds a list; give fields of an objective"),
        ("average: macro\naverage: by_size", "twice, in lines 1 and 2"),
        ("worse_than_static: 0.1", "give objective.initial_weights"),
        ("over: [c]", "objective.over names c; sets are a, b"),
    ],
)
def test_what_is_wrong_with_an_objective_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, objective = tmp_path / "runs.csv", tmp_path / "objective.yaml"
    table.write_text("\n".join([HEADER, *GOOD]))
    objective.write_text(text)
    assert main([str(table), "--objective", str(objective), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_what_the_runs_cannot_say_is_part_of_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    rows = ["50,25,25,1.0,2.0", "40,35,25,1.1,2.0", "20,55,25,1.2,2.0"]  # in per cent
    table.write_text("\n".join(["weight/a,weight/b,weight/c,loss/a,loss/b", *rows]))
    assert main([str(table), "--bootstrap", "0", "--out", str(tmp_path)]) == 0
    answer = capsys.readouterr().out
    for doubt in (
        "Too few runs: 3 for 3 domains",
        "weights of 3 of 3 runs do not sum to 1 (up to 100): normalised",
        "domain 'c' has the weight 0.25 in every run",
        "set 'b' has the same loss in every run",
    ):
        assert doubt in answer
    assert "too few runs" in answer.rpartition("held-out set")[2]


def test_almost_equal_runs_constant_weights_and_normalised_initial_weights_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, losses = swarm()
    weights = {name: 0.9 * values for name, values in weights.items()} | {"fixed": np.full(16, 0.1)}
    table, objective = tmp_path / "runs.csv", tmp_path / "objective.yaml"
    rounded = {name: [*values, values[3].round(4)] for name, values in weights.items()}
    seeds = {name: [*values, values[3]] for name, values in losses.items()}
    write_table(table, named("weight", rounded), named("loss", seeds))
    objective.write_text("initial_weights: {domain0: 0.4, domain1: 0.3, domain2: 0.1, domain3: 0.1, fixed: 0.107}")
    assert main([str(table), "--objective", str(objective), "--bootstrap", "0", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/plan.html").read_text()
    for text in (capsys.readouterr().out, html.unescape(page), (tmp_path / "out/plan.json").read_text()):
        assert "domain 'fixed' has the weight 0.1 in every run" in text  # so that no price of its weight can be known
        assert not re.search("fixed .*beyond it is predicted to gain", text)
        assert "runs 'line 5' and 'line 18' have equal losses and nearly equal weights: if they are one run" in text
        assert "objective.initial_weights sum to 1.007, not to 1: normalised" in text


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


@pytest.mark.parametrize(("gain", "alike"), [(0.005, []), (0.005, ["uniform"]), (0.0, [])])
def test_a_small_gain_is_weighed_against_the_most_that_is_possible(gain: float, alike: list[str]) -> None:
    weights, losses = swarm()
    objective = Objective()
    plan = optimise_mixture(fit_mixture_law(weights, losses, bootstrap=0), objective)
    best = plan.mixtures["recommended"].average.value
    there = replace(plan.mixtures["uniform"], average=Interval(best + gain))
    mixtures = plan.mixtures | {"uniform": there}
    most = Gain("uniform", Interval(0.005, 0.001, 0.006))
    plan = replace(plan, mixtures=mixtures, most=most, given="", indistinguishable=alike)
    assert [each for each in explain(plan) if "costs no more" in each] == ([SMALL] if gain and not alike else [])


def test_text_and_page_have_what_is_gained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, losses = swarm()
    table = write_table(tmp_path / "runs.csv", named("weight", weights), named("loss", losses))
    assert main([str(table), "--bootstrap", "0", "--out", str(tmp_path / "out")]) == 0
    (sentence,) = re.findall("The recommended weights are predicted to be .*more\\.", capsys.readouterr().out)
    assert sentence in (tmp_path / "out/plan.html").read_text()


def test_a_missing_file_and_a_third_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"nowhere\.csv: no such file"):
        read_csv_runs([tmp_path / "nowhere.csv"])
    with pytest.raises(TableError, match="3 tables are given"):
        read_csv_runs([tmp_path / name for name in "abc"])


def test_the_objective_of_the_help_is_read(tmp_path: Path) -> None:
    objective = tmp_path / "objective.yaml"
    objective.write_text(EXAMPLES[EXAMPLES.index("  average:") :])
    weights = {"code": 0.5, "web": 0.5}
    assert read_objective(objective) == Objective(initial_weights=weights, worse_than_static=0.02)
