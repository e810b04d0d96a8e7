"""What `velocitune fit` finds, as text for a terminal and as files: weights to use, the evidence, and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from velocitune_core.contracts import StartingWeights
from velocitune_core.files import obstacle_to_file, obstacle_to_files_in, write_text
from velocitune_core.fit.csv_tables import Runs, TableError
from velocitune_core.fit.objective_file import objective_notes
from velocitune_core.mixture_law.law import LawName, MixtureLaw, fit_mixture_law
from velocitune_core.mixture_law.law_sentences import plan_in_words
from velocitune_core.mixture_law.mixture_plan import Interval, MixturePlan
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.planned_weights import rounded
from velocitune_core.report.plan_page import plan_page
from velocitune_core.style.text import signed

WEIGHTS, PLAN, PAGE = "weights.json", "plan.json", "plan.html"
INPUTS = ("tables", "objective")  # in weights.json


def make_folder(folder: Path) -> None:
    """Make a folder for results. Raises ValueError if it cannot be, or holds such files that no fit wrote."""
    names = (WEIGHTS, PLAN, PAGE)
    obstacles = (obstacle_to_files_in(folder), *(obstacle_to_file(folder / name) for name in names))
    if obstacle := next(filter(None, obstacles), None):
        raise ValueError(f"--out {folder}: {obstacle}")
    there = [name for name in names if (folder / name).exists()]
    if there and not _is_fit(folder / WEIGHTS):
        raise ValueError(f"--out {folder}: has {', '.join(there)}, not from `velocitune fit`; name another folder")
    folder.mkdir(parents=True, exist_ok=True)


def _is_fit(weights: Path) -> bool:
    try:
        return set(StartingWeights.read(weights).inputs) == {*INPUTS}
    except ValueError:  # of another schema, or something else altogether
        return False


@dataclass(frozen=True)
class FitResult:
    """A law of the runs' losses, and the best mixture under it."""

    law: MixtureLaw
    objective: Objective
    plan: MixturePlan

    @classmethod
    def of(cls, runs: Runs, objective: Objective, *, law: LawName, bootstrap: int, seed: int) -> FitResult:
        """Fit the law, and optimise.

        Raises TableError for weights of a single domain, MixtureLawError for a table that no law can be fitted to, and
        ObjectiveError for an objective that contradicts itself or the table, and for guards that no mixture keeps.
        """
        if len(runs.weights.columns) == 1:
            raise TableError(
                f"weights: the only domain is {runs.weights.columns[0]!r}, which leaves no mixture to find; name the "
                "columns of two domains or more with --weights"
            )
        objective.check(sorted(runs.weights.columns), sorted(runs.losses.columns))
        fitted = fit_mixture_law(runs.weights, runs.losses, law=law, bootstrap=bootstrap, seed=seed)
        return cls(fitted, objective, optimise_mixture(fitted, objective))

    @property
    def notes(self) -> list[str]:
        """What was changed of the input, or is remarkable in it."""
        return [*objective_notes(self.objective), *self.law.runs.notes]

    @property
    def explanation(self) -> list[str]:
        """What the plan says, the reasons to doubt it, and what was changed of the objective."""
        return [*plan_in_words(self.law, self.plan), *objective_notes(self.objective)]

    @property
    def weights(self) -> dict[str, float]:
        """The recommended domain weights, with four decimals."""
        return rounded(self.plan.weights)

    def write(self, folder: Path, tables: str, objective: str) -> None:
        """Write weights.json, plan.json and plan.html into a folder, which must exist."""
        said = self.explanation
        write_text(folder / PAGE, plan_page(self.law, self.objective, self.plan, sentences=said))
        evidence = {name: asdict(each) for name, each in self.law.evidence.items()}
        law = {"name": self.law.name, "runs": len(self.law.runs.runs), "evidence": evidence}
        plan = {
            "explanation": said,
            "plan": self.plan.as_dict(),
            "law": law,
            "notes": self.notes,
        }
        write_text(folder / PLAN, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
        found = StartingWeights(
            strategy="planned",
            found_by="planned",
            domain_weights=self.weights,
            inputs=dict(zip(INPUTS, (tables, objective), strict=True)),
        )
        found.write(folder / WEIGHTS)

    def lines(self) -> Iterator[str]:
        """Yield the answer, line by line: sentences, weights, predicted losses, and how good the law is."""
        width = max(map(len, [*self.plan.weights, *self.law.sets, "held-out set"]))
        yield from self.explanation
        yield ""
        yield from self._weight_lines(width)
        yield ""
        yield from self._loss_lines(width)

    def _weight_lines(self, width: int) -> Iterator[str]:
        baseline = self.plan.mixtures[self.plan.baseline].weights
        yield f"{'domain':<{width}} {self.plan.baseline:>9} {'recommended':>12}  over resamples"
        for name, weight in self.weights.items():
            yield f"{name:<{width}} {baseline[name]:>9.4f} {weight:>12.4f}  {_range(self.plan.spread[name])}".rstrip()

    def _loss_lines(self, width: int) -> Iterator[str]:
        recommended, base = self.plan.mixtures["recommended"], f"to {self.plan.baseline}"
        yield f"{'held-out set':<{width}} {'predicted':>9} {base:>12}  {'interval of a run':<18}  error (mean's)"
        for name in self.law.sets:
            loss, evidence = recommended.losses[name], self.law.evidence[name]
            flags = f"  {', '.join(evidence.flags).replace('_', ' ')}" if evidence.flags else ""
            yield (
                f"{name:<{width}} {loss.value:>9.4f} {signed(recommended.set_differences[name].value, 4):>12}  "
                f"{_range(loss):<18}  {evidence.error:.4f} ({evidence.baseline_error:.4f}){flags}"
            )
        yield (
            "Losses in nats per token. Error: by how much the law misses runs that were left out; in parentheses, "
            "by how much the mean of the other runs does."
        )


def _range(each: Interval) -> str:
    return "" if each.low is None or each.high is None else f"{each.low:.4f} to {each.high:.4f}"
