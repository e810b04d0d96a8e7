"""Compare strategies on simulated learners, to choose settings before training: `python benchmarks/simulate.py`.

The first table has, over random draws of domains, the difference of final losses to those under static weights (nats;
negative is a gain): macro average, average weighted by size, and the distance from the temperature frontier, the convex
curve through T = 1, 1.5, 2, 3 and ∞ of the same draw in the plane of the two. Temperature costs nothing and needs no
targets, so an adaptive strategy is worthwhile only below its frontier. The second table varies one unknown at a time.

    python benchmarks/simulate.py --set velocitune.step_size=0.3
    python benchmarks/simulate.py --row velocitune gap_policy=hold smoothing=0.1 --row velocitune gap_policy=hold
    python benchmarks/simulate.py --row mine:Loudest share=0.3 --recency --retained --no-checks
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from simulation import Array, Candidate, Settings, World, draw_world, frontier_distance, simulate

from velocitune_core.strategies import PLANNED, PRESETS, REGISTRY, StrategyError

FRONTIER = (1.0, 1.5, 2.0, 3.0, np.inf)
CONTROL_TEMPERATURE = 2.4  # between two points of the frontier, so its distance is the error of the frontier
MARGIN_NATS = (
    0.002  # below the frontier by more than this is a gain; temperatures between its points are about 0.001 below
)
MOST_TRANSFER_NUMBERS = 4_000_000  # of a check, so that K = 1,000 fits in memory: draws · K²
CHECKS: dict[str, tuple[str, tuple[float, ...]]] = {
    "updates per run": ("updates", (5, 10, 20, 50)),
    "domains": ("domains", (3, 7, 30, 100, 1000)),
    "noise of held-out losses, nats": ("noise_nats", (0.0, 0.002, 0.01)),
    "bias of all targets": ("bias", (-0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1)),
    "own error of each target": ("target_error", (0.0, 0.01, 0.03)),
}


@dataclass(frozen=True)
class Gains:
    """Differences to static weights, (draws,) each, in nats; negative is a gain."""

    macro: Array
    weighted: Array
    frontier: Array


class Judge:
    """Compare final losses of one set of draws with static weights and the temperature frontier."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._static = world.final_losses(world.sizes)
        points = [self._differences(world.final_losses(temperature_weights(world, each))) for each in FRONTIER]
        self._frontier = np.stack(points, axis=-1)  # (2, draws, points)

    def __call__(self, losses: Array) -> Gains:
        macro, weighted = self._differences(losses)
        distance = [
            frontier_distance(*point, *curve)
            for *point, curve in zip(macro, weighted, self._frontier.transpose(1, 0, 2), strict=True)
        ]
        return Gains(macro, weighted, np.array(distance))

    def _differences(self, losses: Array) -> Array:
        """Return differences of macro average and average by size, (2, draws)."""
        difference = losses - self._static
        return np.stack([difference.mean(axis=1), (self._world.sizes * difference).sum(axis=1)])


def temperature_weights(world: World, temperature: float) -> Array:
    weights = world.sizes ** (1 / temperature)
    return weights / weights.sum(axis=1, keepdims=True)


def candidates(arguments: argparse.Namespace) -> list[Candidate]:
    """Return the rows of the tables: the strategies and rows that the arguments name, or all strategies."""
    own = dict(arguments.set)
    temperatures = [
        Candidate(f"temperature T={each:g}", "temperature", {"temperature": each})
        for each in (1.5, 2.0, CONTROL_TEMPERATURE, 3.0, np.inf)
    ]
    names = arguments.strategies or [*REGISTRY, *sorted(set(PRESETS) - {PLANNED})]
    if unused := sorted(set(own) - set(names)):
        raise StrategyError(f"--set names {unused}, not among {names}")
    rows: list[Candidate] = []
    for name in names:
        if name == "temperature" and name not in own:
            rows += temperatures
        else:
            rows.append(Candidate(_label(name, own.get(name, {})), name, own.get(name, {})))
    return [*rows, *(Candidate(_label(name, options), name, options) for name, options in arguments.row)]


def _label(name: str, options: dict[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def gains_table(rows: list[Candidate], settings: Settings, draws: int, seed: int) -> Table:
    """Return a table of the distribution of gains over draws, a row per candidate."""
    world = draw_world(settings, draws, seed)
    judge = Judge(world)
    note = f"{draws} draws of {settings.domains} domains; nats, negative is a gain; median (5 % to 95 %)"
    table = Table("strategy", "macro average", "by size", "from the frontier", "below it", title=note)
    for candidate in rows:
        gains = judge(simulate(candidate, world, settings, seed))
        spreads = [spread(values) for values in (gains.macro, gains.weighted, gains.frontier)]
        table.add_row(candidate.label, *spreads, f"{share_below(gains):.0%}")
    return table


def spread(values: Array) -> str:
    low, middle, high = np.percentile(values, (5, 50, 95))
    return f"{middle:+.4f} ({low:+.3f} to {high:+.3f})"


def check(rows: list[Candidate], settings: Settings, draws: int, seed: int) -> Iterator[tuple[str, float, list[Gains]]]:
    """Yield what was varied, its value, and the gains per candidate."""
    for title, (key, values) in CHECKS.items():
        for value in values:
            varied = replace(settings, **{key: value})
            most = max(2, MOST_TRANSFER_NUMBERS // varied.domains**2)
            world = draw_world(varied, min(draws, most), seed)
            judge = Judge(world)
            yield title, value, [judge(simulate(candidate, world, varied, seed)) for candidate in rows]


def checks_table(rows: list[Candidate], results: list[tuple[str, float, list[Gains]]]) -> Table:
    title = "median gain: macro average / distance from the frontier / share of draws below it"
    table = Table("varied", "to", *(row.label for row in rows), title=title)
    last = ""
    for varied, value, gains in results:
        if last and varied != last:
            table.add_section()
        table.add_row("" if varied == last else varied, f"{value:g}", *map(medians, gains))
        last = varied
    return table


def medians(gains: Gains) -> str:
    return f"{np.median(gains.macro):+.3f} / {np.median(gains.frontier):+.4f} / {share_below(gains):.0%}"


def share_below(gains: Gains) -> float:
    return float(np.mean(gains.frontier < -MARGIN_NATS))


def save_figure(path: Path, rows: list[Candidate], results: list[tuple[str, float, list[Gains]]]) -> None:
    """Draw the median distance from the frontier per value, a panel per setting that was varied."""
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(title for title, _, _ in results))
    figure = Figure(figsize=(3 * len(titles), 3.2), layout="constrained")
    panels = figure.subplots(1, len(titles), sharey=True)
    for panel, title in zip(panels, titles, strict=True):
        points = [(value, gains) for each, value, gains in results if each == title]
        for number, row in enumerate(rows):
            medians = [np.median(gains[number].frontier) for _, gains in points]
            panel.plot(range(len(points)), medians, marker="o", label=row.label)
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set_xticks(range(len(points)), [f"{value:g}" for value, _ in points])
        panel.set_xlabel(title)
    panels[0].set_ylabel("distance from the\ntemperature frontier, nats")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
    figure.savefig(path)


def _assignment(text: str) -> tuple[str, Any]:
    """Parse key=value, the value as YAML."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} must be OPTION=VALUE")
    return key, yaml.safe_load(value)


def _strategy_assignments(texts: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Parse velocitune.step_size=0.3 → ("velocitune", {"step_size": 0.3}), with all options of a strategy together."""
    collected: dict[str, dict[str, Any]] = {}
    for text in texts:
        address, value = _assignment(text)
        name, dot, option = address.rpartition(".")
        if not dot:
            raise argparse.ArgumentTypeError(f"{text!r} must be STRATEGY.OPTION=VALUE")
        collected.setdefault(name, {})[option] = value
    return list(collected.items())


FIELD_HELP = {
    "domains": "K",
    "steps": "training steps per run, a multiple of the updates",
    "updates": "evaluations per run",
    "batch_sequences": "sequences per training step",
    "noise_nats": "standard deviation of a held-out loss",
    "batch_noise_nats": "standard deviation of the training loss of one sequence",
    "transfer": "learning from all other domains' tokens, as a share of learning from a domain's own",
    "bias": "relative error of all targets, 0.02 = 2 %% too easy",
    "target_error": "standard deviation of each target's own relative error",
    "recency": "order matters: tokens are weighted by learning rate, and domains not trained on are forgotten",
    "forgetting": "with --recency: rate of forgetting; at 1 a domain of weight 0 keeps 1/e of its tokens",
    "retained": "the first domain of each draw was in the base model's training data",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="random draws of domains (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of draws and noise (default 1)")
    parser.add_argument(
        "--strategies",
        nargs="*",
        metavar="NAME",
        help="only these, of the registry, presets or module:Class (default all)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="STRATEGY.OPTION=VALUE", help="change an option; may be repeated"
    )
    parser.add_argument(
        "--row",
        action="append",
        nargs="+",
        default=[],
        metavar=("NAME", "OPTION=VALUE"),
        help="one more row: that strategy with these options; may be repeated",
    )
    for each in fields(Settings):
        flag = "--" + each.name.removesuffix("_nats").replace("_", "-")
        text = FIELD_HELP[each.name]
        if each.default is False:
            parser.add_argument(flag, dest=each.name, action="store_true", help=text)
        else:
            kind = type(each.default)
            help_text = f"{text} (default {each.default})"
            parser.add_argument(flag, dest=each.name, type=kind, default=each.default, help=help_text)
    parser.add_argument("--checks", action=argparse.BooleanOptionalAction, default=True, help="the second table")
    parser.add_argument("--figure", type=Path, help="write the second table as a figure to this file too")
    arguments = parser.parse_args(argv)
    try:
        arguments.set = _strategy_assignments(arguments.set)
        arguments.row = [(name, dict(map(_assignment, options))) for name, *options in arguments.row]
        arguments.settings = Settings(**{each.name: getattr(arguments, each.name) for each in fields(Settings)})
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(str(error))
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    console = Console()
    try:
        rows = candidates(arguments)
        console.print(gains_table(rows, arguments.settings, arguments.draws, arguments.seed))
        followers = [row for row in rows if row.follows_targets]
        if arguments.checks and followers:
            results = list(check(followers, arguments.settings, arguments.draws, arguments.seed))
            console.print(checks_table(followers, results))
            if arguments.figure:
                save_figure(arguments.figure, followers, results)
    except StrategyError as error:
        sys.exit(f"simulate: {error}")


if __name__ == "__main__":
    main()
