"""The table of runs that a law is fitted to: domain weights and held-out losses, joined by name, with all checks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEAST_MIXTURES = 3  # a law of fewer would be a line through its points
ROUNDING = 0.0005  # of a weight with three decimals
SAME_MIXTURE = 0.0025  # total variation, a share of the tokens: what rounding and sampling do to the weights of one
SAME_LOSSES = 0.00005  # nats: what rounding to four decimals does to the losses of one run
SAME_UNIT = 0.05  # rows whose sum differs from the others' by a larger share lack a domain
SHOWN = 5  # rows named in a message


class MixtureLawError(ValueError):
    """Runs to which no law can be fitted, or weights that a law cannot read."""


@dataclass(frozen=True)
class RunTable:
    """Runs of one swarm, in an order that changes no result: columns by name, rows by their weights, then losses."""

    domains: tuple[str, ...]  # K
    sets: tuple[str, ...]  # I held-out sets
    weights: Array  # (R, K), every row sums to 1
    losses: Array  # (R, I) nats per token
    runs: tuple[str, ...]  # labels of the rows
    notes: tuple[str, ...] = ()  # what was changed or is remarkable

    @cached_property
    def mixtures(self) -> NDArray[np.intp]:
        """Return the number of each run's mixture, (R,).

        Runs have the same if the weights of both are within 0.0025 total variation of the first run that has it:
        weights may be realised shares, which differ a little between two seeds of one mixture.
        """
        firsts: list[int] = []
        found = np.empty(len(self.weights), dtype=np.intp)
        for run, weights in enumerate(self.weights):
            apart = np.abs(self.weights[firsts] - weights).sum(axis=1) / 2
            found[run] = apart.argmin() if len(apart) and apart.min() <= SAME_MIXTURE else len(firsts)
            if found[run] == len(firsts):
                firsts.append(run)
        return found


def read_runs(weights: object, losses: object) -> RunTable:
    """Return the table of runs, sorted (`RunTable`).

    Args:
        weights: DataFrame with a column per domain, or {domain: (R,)}: shares that sum to 1 in every run.
        losses: DataFrame with a column per held-out set, or {set: (R,)}: nats per token. Rows are joined by index
            labels when both are DataFrames, else by position.

    Raises MixtureLawError with all problems: columns that are missing, doubled or of unlike length; values that are no
    numbers, negative weights, losses that are not positive; labels that do not match; runs given twice; fewer than
    three different mixtures; a row that sums to something else than the others.
    """
    domains, shares, labels = _columns("weights", weights)
    sets, values, loss_labels = _columns("losses", losses)
    if labels is not None and loss_labels is not None:
        values = values[_joined(labels, loss_labels)]
    elif len(shares) != len(values):
        raise MixtureLawError(
            f"weights has {len(shares)} rows and losses {len(values)}; give one row of each per run, in the same order"
        )
    if not len(shares):
        raise MixtureLawError(f"weights and losses have no rows; a law needs at least {LEAST_MIXTURES} runs")
    named = labels if labels is not None else loss_labels
    runs = tuple(str(label) for label in (named if named is not None else range(len(shares))))
    problems = _bad_values("weights", domains, shares, runs, least=0.0)
    problems += _bad_values("losses", sets, values, runs, least=np.nextafter(0.0, 1.0))
    if problems:
        raise MixtureLawError("\n".join(problems))
    shares, notes = normalised(shares, runs)
    order = row_order(shares, values)
    table = RunTable(domains, sets, shares[order], values[order], tuple(runs[row] for row in order), tuple(notes))
    _refuse_few(table)
    return replace(table, notes=(*table.notes, *_remarks(table)))


def row_order(*tables: Array) -> NDArray[np.intp]:
    """Return the order of runs by their numbers in tables (R, …): sums and draws then give the same bits for any."""
    return np.lexsort(np.concatenate(tables, axis=1).T[::-1])


def read_weights(domains: Sequence[str], weights: object) -> Array:
    """Return weights (..., K) in the order of `domains` from a DataFrame or {domain: number or (M,)}.

    Raises MixtureLawError for a domain that is missing or unknown, and for rows that do not sum to 1.
    """
    columns = weights if isinstance(weights, Mapping) else getattr(weights, "columns", None)
    if columns is None:
        raise MixtureLawError(
            f"weights: a {type(weights).__name__} is no table; give a DataFrame or {{domain: weight}} "
            "(of a pandas Series: .to_dict())"
        )
    given = [str(name) for name in columns]
    missing, unknown = sorted(set(domains) - set(given)), sorted(set(given) - set(domains))
    if missing or unknown:
        raise MixtureLawError(
            f"weights: domains missing {missing}, unknown {unknown}; the law has {list(domains)}; give a weight of each"
        )
    numbers = [name for name, each in weights.items() if np.ndim(each) == 0] if isinstance(weights, Mapping) else []
    if numbers and len(numbers) < len(given):
        raise MixtureLawError(
            f"weights: {_some(numbers)} are numbers and the others lists; give a number, or a list of one length, "
            "for every domain"
        )
    rows = {name: np.atleast_1d(each) for name, each in weights.items()} if isinstance(weights, Mapping) else weights
    names, shares, _ = _columns("weights", rows)
    runs = tuple(str(row) for row in range(len(shares)))
    if problems := _bad_values("weights", names, shares, runs, least=0.0):
        raise MixtureLawError("\n".join(problems))
    total = shares.sum(axis=1)
    if (wrong := np.abs(total - 1) > ROUNDING * len(names)).any():
        raise MixtureLawError(f"weights: rows {_some(np.flatnonzero(wrong))} sum to {total[wrong][:SHOWN]}, not to 1")
    shares = (shares / total[:, None])[:, [names.index(domain) for domain in domains]]
    return shares[0] if numbers else shares


def normalised(shares: Array, runs: Sequence[str]) -> tuple[Array, list[str]]:
    """Return rows that sum to 1 (R, K), and a note where they did not within rounding.

    Raises MixtureLawError where a row's sum is zero or unlike the others': a domain is missing there.
    """
    total = shares.sum(axis=1)
    odd, common = unlike_sums(total)
    if len(odd):
        raise MixtureLawError(
            f"weights: runs {_labels(runs, odd)} sum to {_some(total[odd].round(4))} where others sum to {common:.4g}; "
            "is a domain's column missing or a row incomplete? Give every run's share of every domain"
        )
    off = np.abs(total - 1) > ROUNDING * shares.shape[1] + 1e-9
    notes = []
    if off.any():
        worst = total[np.abs(total - 1).argmax()]
        notes.append(f"weights of {off.sum()} of {len(total)} runs do not sum to 1 (up to {worst:.4g}): normalised")
    return shares / total[:, None], notes


def unlike_sums(totals: Array) -> tuple[NDArray[np.intp], float]:
    """Return the rows whose weights sum to zero or to something else than the others' (R,), and what those sum to."""
    common = float(np.median(totals))
    odd = np.abs(totals - common) > SAME_UNIT * common if common > 0 else totals <= 0
    return np.flatnonzero(odd), common


def _columns(what: str, table: Any) -> tuple[tuple[str, ...], Array, list[Hashable] | None]:
    """Return names sorted, values (R, names) and row labels; without labels in a mapping."""
    labels = None
    if hasattr(table, "columns"):
        keys, index = list(table.columns), getattr(table, "index", None)
        labels = None if index is None else list(index)  # polars has none
    elif isinstance(table, Mapping):
        keys = list(table)
    else:
        raise MixtureLawError(
            f"{what}: {type(table).__name__} has no column names; give a DataFrame or {{name: values}}"
        )
    names = [str(key) for key in keys]
    if not names:
        raise MixtureLawError(f"{what} has no columns; weights need one per domain, losses one per held-out set")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MixtureLawError(f"{what}: columns {twice} are there twice; leave one of each out")
    columns = {name: np.asarray(table[key]) for name, key in zip(names, keys, strict=True)}
    lengths = {name: column.shape for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise MixtureLawError(f"{what}: columns must be lists of one length, one value per run; got shapes {lengths}")
    ordered = tuple(sorted(names))
    try:
        return ordered, np.stack([columns[name].astype(float) for name in ordered], axis=1), labels
    except (TypeError, ValueError) as error:
        raise MixtureLawError(f"{what}: a value is no number ({error}); give numbers only") from error


def _joined(labels: list[Hashable], others: list[Hashable]) -> list[int]:
    """Return the row of the losses for each row of the weights."""
    for what, each in (("weights", labels), ("losses", others)):
        if twice := sorted({str(label) for label in each if each.count(label) > 1}):
            raise MixtureLawError(
                f"{what}: index labels {_some(twice)} are there twice; leave one of each out, or rename it if it is "
                "another run"
            )
    alone = [str(label) for label in labels if label not in set(others)]
    alone_too = [str(label) for label in others if label not in set(labels)]
    if alone or alone_too:
        raise MixtureLawError(
            f"runs {_some(alone)} have weights but no losses, runs {_some(alone_too)} losses but no weights; rows "
            "are joined by index label: leave these runs out or add what is missing"
        )
    row = {label: position for position, label in enumerate(others)}
    return [row[label] for label in labels]


def _bad_values(what: str, names: Sequence[str], values: Array, runs: Sequence[str], *, least: float) -> list[str]:
    """Return a message per column with values that are not finite or below `least`."""
    problems = []
    for name, column in zip(names, values.T, strict=True):
        if (wrong := ~(np.isfinite(column) & (column >= least))).any():
            rows = np.flatnonzero(wrong)
            allowed = "zero or more" if least == 0 else "positive"
            problems.append(
                f"{what}: column {name!r} has {_some(column[rows])} in runs {_labels(runs, rows)}; "
                f"must be finite and {allowed}: leave these runs out or measure them again"
            )
    return problems


def _refuse_few(table: RunTable) -> None:
    """Raise MixtureLawError for a run given twice, or too few different mixtures."""
    whole = np.concatenate([table.weights, table.losses], axis=1)
    _, first, which = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    if len(first) < len(whole):
        row = next(row for row, each in enumerate(which.ravel()) if first[each] != row)
        raise MixtureLawError(
            f"runs {table.runs[first[which.ravel()[row]]]!r} and {table.runs[row]!r} are equal in all values; "
            "a run given twice would count twice. Leave one out (the same mixture with another seed may stay)"
        )
    different = len(np.unique(table.mixtures))
    if different < LEAST_MIXTURES:
        raise MixtureLawError(
            f"weights: different mixtures among the runs: {different}; a law needs at least {LEAST_MIXTURES}, and "
            f"{enough_runs(len(table.domains))} to be usable for {len(table.domains)} domains. Add runs"
        )


def enough_runs(domains: int) -> int:
    """Return the runs with which a law of that many domains is usable: 2·(K + 3)."""
    return 2 * (domains + 3)


def _remarks(table: RunTable) -> list[str]:
    """Return what the runs cannot say."""
    remarks = []
    for domain, weights in zip(table.domains, table.weights.T, strict=True):
        if is_constant(weights.min(), weights.max(), len(table.domains)):
            mean = f"{weights.mean():.3g}"
            remarks.append(f"domain {domain!r} has the weight {mean} in every run: what it teaches is not known")
    for name, moved in zip(table.sets, np.ptp(table.losses, axis=0), strict=True):
        if moved == 0:
            remarks.append(f"set {name!r} has the same loss in every run: no run moves it, it is taken as constant")
    if alike := _nearly_twice(table):
        remarks.append(
            f"runs {' and '.join(map(repr, alike[0]))} have equal losses and nearly equal weights"
            f"{f', and so have {len(alike) - 1} pairs more' if len(alike) > 1 else ''}: if they are one run, it counts "
            "twice; leave one out"
        )
    if len(table.runs) < len(table.domains):
        remarks.append(f"{len(table.runs)} runs for {len(table.domains)} domains: most rates come from the prior")
    return remarks


def is_constant(low: float, high: float, domains: int) -> bool:
    """Return whether a weight is the same in all runs, up to what normalising rows of rounded weights does to it."""
    return high - low <= 2 * ROUNDING * domains * high + 1e-9


def _nearly_twice(table: RunTable) -> list[tuple[str, str]]:
    """Return pairs of runs of one mixture that have the same losses, up to rounding; another seed gives others."""
    pairs = []
    for mixture in np.flatnonzero(np.bincount(table.mixtures) > 1):
        rows = np.flatnonzero(table.mixtures == mixture)
        for place, row in enumerate(rows[1:], start=1):
            apart = np.abs(table.losses[rows[:place]] - table.losses[row]).max(axis=1)
            if apart.min() <= SAME_LOSSES:
                one, other = sorted((table.runs[rows[apart.argmin()]], table.runs[row]), key=_by_number)
                pairs.append((one, other))
    return sorted(pairs, key=lambda pair: _by_number(pair[0]))


def _by_number(label: str) -> tuple[int, str]:
    """Order 'line 5' before 'line 18'."""
    return len(label), label


def _labels(runs: Sequence[str], rows: NDArray[np.intp]) -> list[Any]:
    """Return the labels of the first few of these rows."""
    return _some([runs[int(row)] for row in rows])


def _some(values: Sequence[Any] | NDArray[Any]) -> list[Any]:
    """Return the first few values, with an ellipsis for the rest."""
    shown = np.asarray(values).tolist() if len(values) else []
    return shown if len(shown) <= SHOWN else [*shown[:SHOWN], "…"]
