"""A comparison as tables of text, and as flat metrics for MLflow."""

from __future__ import annotations

from collections.abc import Sequence

from velocitune_core.comparison.metrics import DOWNSTREAM, METRICS, Unit, domains, metric
from velocitune_core.comparison.statistics import (
    DIGITS,
    PLANES,
    ComparisonSummary,
    Estimate,
    FrontierDistance,
    StrategySummary,
    summarise,
)
from velocitune_core.contracts import Comparison
from velocitune_core.style.text import difference_text, signed, tokens_text

Row = dict[str, str]
MISSING = "–"
OUTSIDE = "*"  # marks a distance to the extrapolated part of the frontier
RESULT_METRICS = ("macro_average_loss", "size_weighted_loss", "learnt_average_loss", "retention", "worst_shortfall")
COST_METRICS = ("speed_up", "steps_to_settle", "repeated_tokens", "added_tokens", "added_seconds")
FRONTIER_HEADINGS = {"size_weighted": "to frontier (by size)", "retention": "to frontier (retention)"}
DIFFERENCE = "to baseline"
EXACT: tuple[Unit, ...] = ("nats", "bits per byte")
SUFFIXES: dict[Unit, str] = {"share": " %", "times": "×"}


def formatted_comparison(comparison: Comparison) -> list[Row]:
    """Return the results of each strategy, a row per label: mean ± half of the 95 % interval over seeds.

    Losses are in nats per token; “–” stands for what does not exist. The difference is that of macro-average losses,
    paired by seed. Distances to the frontier are vertical, with their verdict.
    """
    return result_rows(summarise(comparison))


def result_rows(summary: ComparisonSummary) -> list[Row]:
    """Return the rows of `formatted_comparison`."""
    columns = [name for name in RESULT_METRICS if _exists(summary, name)]
    planes = [plane.name for plane in PLANES if any(each.distances[plane.name] for each in summary.strategies.values())]
    rows = []
    for strategy in summary.strategies.values():
        row = {"strategy": strategy.label}
        for name in columns:
            row[metric(name).heading] = estimate_text(strategy.metrics.get(name), metric(name).unit)
            if name == "macro_average_loss":
                row[DIFFERENCE] = _difference_text(summary, strategy)
                row |= {FRONTIER_HEADINGS[plane]: distance_text(strategy.distances[plane]) for plane in planes}
        row["seeds"] = str(len(strategy.runs))
        rows.append(row)
    return rows


def note_of_marks(rows: Sequence[Row]) -> str:
    """Return what the mark in cells of the results means; nothing where no cell has it."""
    marked = any(OUTSIDE in cell for row in rows for name, cell in row.items() if name != "strategy")
    return f"{OUTSIDE}: left of all mixtures in at least one seed, where the line is extrapolated." if marked else ""


def cost_rows(summary: ComparisonSummary) -> list[Row]:
    """Return speed-up and added cost of each strategy, in the same form."""

    def row(strategy: StrategySummary) -> Row:
        cells = {
            metric(name).heading: estimate_text(strategy.metrics.get(name), metric(name).unit) for name in COST_METRICS
        }
        speed_ups = [values["speed_up"] for values in strategy.runs.values()]
        reached = sum(value is not None for value in speed_ups)
        if 0 < reached < len(speed_ups):
            cells[metric("speed_up").heading] = f"reached in {reached} of {len(speed_ups)}"
        return {"strategy": strategy.label} | cells

    return [row(strategy) for strategy in summary.strategies.values()]


def domain_rows(summary: ComparisonSummary) -> list[Row]:
    """Return the final loss per domain, a row per label."""
    return [
        {"strategy": strategy.label}
        | {name: estimate_text(strategy.losses[name], "nats") for name in domains(summary.comparison)}
        for strategy in summary.strategies.values()
    ]


def downstream_rows(summary: ComparisonSummary) -> list[Row]:
    """Return bits per byte per family of tasks, a row per label; empty if none was measured."""
    if not summary.families:
        return []
    return [
        {"strategy": strategy.label}
        | {name: estimate_text(strategy.metrics.get(DOWNSTREAM + name), "bits per byte") for name in summary.families}
        for strategy in summary.strategies.values()
    ]


def raw_rows(summary: ComparisonSummary) -> list[Row]:
    """Return every metric of every run, a row per run."""
    names = [*METRICS, *(DOWNSTREAM + family for family in summary.families)]
    return [
        {"strategy": strategy.label, "seed": str(seed)}
        | {metric(name).heading: number_text(values.get(name), metric(name).unit, 4) for name in names}
        for strategy in summary.strategies.values()
        for seed, values in strategy.runs.items()
    ]


def comparison_metrics(comparison: Comparison) -> dict[str, float]:
    """Return flat metrics: `<label>/<metric>` is the mean over seeds, `…/half_width` that of its interval.

    `<label>/<metric>/difference` is that to the baseline; there are also `<label>/loss/<domain>` and
    `<label>/frontier/<plane>`. What does not exist is left out.
    """
    flat: dict[str, float] = {}

    def put(name: str, found: Estimate | None) -> None:
        if found is not None:
            flat[name] = found.mean
            if found.half_width is not None:
                flat[f"{name}/half_width"] = found.half_width

    for label, strategy in summarise(comparison).strategies.items():
        for name, found in strategy.metrics.items():
            put(f"{label}/{name}", found)
            if label != comparison.baseline:
                put(f"{label}/{name}/difference", strategy.differences[name])
        for name, found in strategy.losses.items():
            put(f"{label}/loss/{name}", found)
        for plane, distance in strategy.distances.items():
            put(f"{label}/frontier/{plane}", None if distance is None else distance.estimate)
    return flat


def estimate_text(found: Estimate | None, unit: Unit, *, sign: bool = False) -> str:
    """Return '3.912 ± 0.004' or '12.0 ± 0.5 %'; '3.912' for one seed, and for counts without spread."""
    if found is None:
        return MISSING
    mean = number_text(found.mean, unit, sign=sign)
    if found.half_width is None:
        return mean
    half_width = number_text(found.half_width, unit)
    if unit not in EXACT and found.half_width <= 1e-9 * abs(found.mean):
        return mean
    suffix = SUFFIXES.get(unit, "")
    return f"{mean.removesuffix(suffix)} ± {half_width}"


def estimate_in_words(found: Estimate, *, sign: bool = True) -> str:
    """Return losses in nats for a sentence, as `estimate_text` does; a difference that rounds to zero in words."""
    text = estimate_text(found, "nats", sign=sign)
    if float(f"{found.mean:.{DIGITS}f}"):
        return text
    _, _, half_width = text.partition(" ± ")
    return difference_text(found.mean, DIGITS) + (f" (± {half_width})" if half_width else "")


def number_text(value: float | None, unit: Unit, digits: int = DIGITS, *, sign: bool = False) -> str:
    """Return a value with its unit; `digits` apply to losses."""
    if value is None:
        return MISSING
    if unit == "tokens":
        return tokens_text(value)
    scaled, digits = {"share": (value * 100, 1), "steps": (value, 0), "times": (value, 2)}.get(unit, (value, digits))
    text = signed(scaled, digits) if sign or value < 0 else f"{scaled:,.{digits}f}"
    return text + SUFFIXES.get(unit, "")


def distance_text(distance: FrontierDistance | None) -> str:
    """Return a distance to the frontier with its verdict."""
    if distance is None:
        return MISSING
    text = estimate_text(distance.estimate, "nats", sign=True) + OUTSIDE * bool(distance.extrapolated)
    return text if distance.verdict is None else f"{text} {distance.verdict}"


def _difference_text(summary: ComparisonSummary, strategy: StrategySummary) -> str:
    found = strategy.differences["macro_average_loss"]
    if found is None or strategy is summary.baseline:
        return MISSING
    pairs = f" ({found.seeds} pairs)" if found.seeds < len(strategy.runs) else ""
    return estimate_text(found, "nats", sign=True) + pairs


def _exists(summary: ComparisonSummary, name: str) -> bool:
    return any(strategy.metrics.get(name) is not None for strategy in summary.strategies.values())
