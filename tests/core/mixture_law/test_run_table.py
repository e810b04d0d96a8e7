"""Tables of runs that cannot be fitted are refused with column, row and what to do; rows are joined by label."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_swarm import draw_swarm

from velocitune_core.mixture_law import MixtureLawError, fit_mixture_law
from velocitune_core.mixture_law.table import read_runs, read_weights

Columns = dict[str, np.ndarray]


class Frame(dict):
    """As much of a DataFrame as is used: columns, an index, and columns by name."""

    def __init__(self, columns: Columns, index: list[object]) -> None:
        super().__init__(columns)
        self.columns, self.index = list(columns), index


def columns() -> tuple[Columns, Columns]:
    return draw_swarm(0, runs=6, domains=3, sets=2).columns


def with_value(table: Columns, name: str, row: int, value: float) -> Columns:
    changed = {each: values.copy() for each, values in table.items()}
    changed[name][row] = value
    return changed


def test_all_values_that_are_wrong_are_told_at_once() -> None:
    weights, losses = columns()
    weights, losses = with_value(weights, "domain1", 2, np.nan), with_value(losses, "domain0", 4, -1.0)
    with pytest.raises(MixtureLawError) as error:
        read_runs(weights, losses)
    told = str(error.value)
    assert "weights: column 'domain1' has [nan] in runs ['2']" in told
    assert "losses: column 'domain0' has [-1.0] in runs ['4']" in told
    assert "measure them again" in told


@pytest.mark.parametrize(
    ("value", "told"), [(np.inf, "finite"), (-0.1, "zero or more"), (0.9, "runs \\['1'\\] sum to .* missing")]
)
def test_weights_that_are_no_shares_are_refused(value: float, told: str) -> None:
    weights, losses = columns()
    with pytest.raises(MixtureLawError, match=told):
        read_runs(with_value(weights, "domain0", 1, value), losses)


def test_a_run_with_another_sum_lacks_a_domain() -> None:
    weights, losses = columns()
    del weights["domain2"]
    with pytest.raises(MixtureLawError, match=r"others sum to .* is a domain's column missing"):
        read_runs(weights, losses)


def test_rounded_weights_are_normalised_and_percentages_said_to_be() -> None:
    weights, losses = columns()
    rounded = read_runs({name: values.round(3) for name, values in weights.items()}, losses)
    assert rounded.weights.sum(axis=1) == pytest.approx(1, abs=1e-15) and rounded.notes == ()
    percent = read_runs({name: 100 * values for name, values in weights.items()}, losses)
    assert percent.weights == pytest.approx(read_runs(weights, losses).weights)
    assert percent.notes == ("weights of 6 of 6 runs do not sum to 1 (up to 100): normalised",)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([0], "different mixtures among the runs: 1; a law needs at least 3, and 12"),
        ([0, 1], "different mixtures among the runs: 2"),
        ([0, 1, 2, 1], "runs '1' and '3' are equal in all values"),
    ],
)
def test_too_few_runs_and_runs_given_twice_are_refused(rows: list[int], told: str) -> None:
    weights, losses = ({name: values[rows] for name, values in table.items()} for table in columns())
    with pytest.raises(MixtureLawError, match=told):
        read_runs(weights, losses)


def test_constant_columns_are_said() -> None:
    weights, losses = columns()
    shrunk = {name: 0.9 * values for name, values in weights.items()} | {"fixed": np.full(6, 0.1)}
    losses["still"] = np.full(6, 2.0)
    notes = read_runs(shrunk, losses).notes
    assert len(notes) == 2
    assert "domain 'fixed' has the weight 0.1 in every run" in notes[0]
    assert "set 'still' has the same loss in every run" in notes[1]


def test_shapes_and_names_are_checked() -> None:
    weights, losses = columns()
    for wrong, told in (
        ({name: values[:4] for name, values in losses.items()}, "6 rows and losses 4"),
        ({**losses, "short": np.ones(2)}, "one length"),
        ({**losses, "words": np.array(["a"] * 6)}, "is no number"),
        ({}, "no columns"),
        (np.ones((6, 2)), "no column names"),
        ({name: values[:0] for name, values in losses.items()}, "6 rows and losses 0"),
    ):
        with pytest.raises(MixtureLawError, match=told):
            read_runs(weights, wrong)
    double = Frame(weights, list(range(6)))
    double.columns = ["domain0", "domain0", "domain1"]
    with pytest.raises(MixtureLawError, match=r"columns \['domain0'\] are there twice"):
        read_runs(double, losses)
    with pytest.raises(MixtureLawError, match="'cubic' is none of transfer, loglinear, bimix, auto"):
        fit_mixture_law(weights, losses, law="cubic")


def test_a_table_without_rows_is_refused() -> None:
    empty: tuple[Columns, ...] = tuple({name: values[:0] for name, values in table.items()} for table in columns())
    with pytest.raises(MixtureLawError, match="no rows; a law needs at least 3"):
        read_runs(*empty)


def test_realised_shares_of_one_mixture_are_one_mixture() -> None:
    """Shares that sampling moved by 2e-4 are the same mixture; a percent from one domain to another is not."""
    random, mixtures = np.random.default_rng(0), np.random.default_rng(1).dirichlet(np.full(7, 3.0), size=6)
    shares = np.abs(np.repeat(mixtures, 3, axis=0) + 2e-4 * random.standard_normal((18, 7)))
    shares = np.vstack([shares, mixtures[0] + np.array([0.01, -0.01, 0, 0, 0, 0, 0])])
    table = read_runs(dict(zip("abcdefg", shares.T, strict=True)), {"a": 2 + random.random(19)})
    assert table.mixtures.tolist() == [*np.repeat(np.arange(6), 3), 6]


def test_rows_of_frames_are_joined_by_label() -> None:
    weights, losses = columns()
    labels: list[object] = list("abcdef")
    backwards = Frame({name: values[::-1] for name, values in losses.items()}, labels[::-1])
    joined = read_runs(Frame(weights, labels), backwards)
    assert (joined.losses == read_runs(weights, losses).losses).all()
    assert sorted(joined.runs) == list("abcdef")
    given = {label: tuple(values[row] for values in losses.values()) for row, label in enumerate(labels)}
    assert {label: tuple(row) for label, row in zip(joined.runs, joined.losses, strict=True)} == given
    with pytest.raises(MixtureLawError, match=r"runs \['f'\] have weights but no losses, runs \['g'\] losses"):
        read_runs(Frame(weights, labels), Frame(losses, list("abcdeg")))
    with pytest.raises(MixtureLawError, match=r"losses: index labels \['a'\] are there twice"):
        read_runs(Frame(weights, labels), Frame(losses, list("aabcde")))


def test_a_frame_of_pandas_is_read() -> None:
    pandas = pytest.importorskip("pandas")
    weights, losses = (pandas.DataFrame(each) for each in columns())
    law = fit_mixture_law(weights, losses.sample(frac=1, random_state=0))
    assert law.losses(law.runs.weights) == pytest.approx(
        fit_mixture_law(*columns()).losses(law.runs.weights), abs=1e-12
    )
    assert law.predict(weights)["domain0"].shape == (6,)


def test_weights_to_predict_are_read_by_name() -> None:
    domains = ("a", "b")
    assert read_weights(domains, {"b": 0.3, "a": 0.7}).tolist() == [0.7, 0.3]
    assert read_weights(domains, {"b": [0.3, 1], "a": [0.7, 0]}).tolist() == [[0.7, 0.3], [0, 1]]
    for wrong, told in (
        ({"a": 1.0}, r"domains missing \['b'\]"),
        ({"a": 0.5, "b": 0.4, "c": 0.1}, r"unknown \['c'\]"),
        ({"a": 0.5, "b": 0.4}, "sum to .*, not to 1"),
        ({"a": np.nan, "b": 0.4}, "finite"),
        ([0.5, 0.5], "a list is no table"),
        ({"a": 0.5, "b": [0.5, 0.5]}, r"\['a'\] are numbers and the others lists"),
    ):
        with pytest.raises(MixtureLawError, match=told):
            read_weights(domains, wrong)
