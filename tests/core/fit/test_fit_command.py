"""`velocitune fit`: from tables of runs to weights, evidence and a page."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_tables import GOOD, HEADER, named, swarm, write_table

from velocitune_core import Objective, fit_mixture_law, optimise_mixture
from velocitune_core.contracts import StartingWeights
from velocitune_core.fit.command import EXAMPLES, main
from velocitune_core.fit.objective_file import read_objective
from velocitune_core.mixture_law import explain
from velocitune_core.mixture_law.mixture_plan import Gain, Interval

SMALL = (
    "The recommended weights are predicted to be 0.005 nats better than uniform, of the 0.006 that are possible at "
    "most; training under them costs no more."
)


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


@pytest.mark.parametrize("tables", [1, 2])
def test_another_order_of_rows_gives_the_same_bits(tables: int, tmp_path: Path) -> None:
    weights, losses = swarm()
    runs: dict[str, object] = {"run": [f"run-{number}" for number in range(16)]}
    parts = [[runs, named("weight", weights), named("loss", losses)]]
    if tables == 2:
        parts = [[runs, named("weight", weights)], [runs, named("loss", losses)]]
    orders = {"given": range(16), "reversed": range(15, -1, -1), "mixed": np.random.default_rng(0).permutation(16)}
    found = {}
    for name, order in orders.items():
        files = [tmp_path / f"{number}.csv" for number in range(tables)]
        for number, (file, part) in enumerate(zip(files, parts, strict=True)):
            write_table(file, *part, order=list(order) if number == 0 else None)
        assert main([*map(str, files), "--law", "auto", "--bootstrap", "8", "--out", str(tmp_path / name)]) == 0
        found[name] = [(tmp_path / name / each).read_bytes() for each in ("weights.json", "plan.json", "plan.html")]
    assert found["reversed"] == found["mixed"] == found["given"]


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


def test_the_objective_of_the_help_is_read(tmp_path: Path) -> None:
    objective = tmp_path / "objective.yaml"
    objective.write_text(EXAMPLES[EXAMPLES.index("  average:") :])
    weights = {"code": 0.5, "web": 0.5}
    assert read_objective(objective) == Objective(initial_weights=weights, worse_than_static=0.02)
