"""The domain weights that a training starts from, in MLflow before the training: the end of `velocitune mixture`."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.views.mlflow_links import artifact_page
from tasks.views.mlflow_result import MOST_CELLS, NOTE, link
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_artifacts import markdown_table
from tasks.views.table_rows import weights_rows
from tasks.workspace import paths
from velocitune_core.contracts import StartingWeights
from velocitune_core.report.compared_mixtures import mixture_block
from velocitune_core.style.text import counted, duration, tokens_text

BEFORE = "Before the training: "  # how the note begins, until that of the report takes its place


def log_weights(tracker: Tracker, found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> None:
    """Log results/weights.json to the parent run, each weight as a metric, and what they are and cost as its note.

    They are no parameters, which MLflow could not replace if they were found again. A note that the parent run has
    from elsewhere stays: that of a report says more.
    """
    tracker.log_artifact(paths.WEIGHTS)
    tracker.log_metrics({f"weight/{name}": weight for name, weight in found.domain_weights.items()})
    with tracker.reaching() as client:
        if client is None:
            return
        note = client.get_run(tracker.parent).data.tags.get(NOTE, "")
        if not note or note.startswith(BEFORE):
            client.set_tag(tracker.parent, NOTE, _note(tracker, found, initial_domain_weights))


def _note(tracker: Tracker, found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> str:
    parts = [BEFORE + found_in_words(found)]
    if found.planned is not None:
        page = artifact_page(tracker.experiment, tracker.parent, paths.PLAN_PAGE.name)
        parts += [" ".join(found.planned.explanation), link("Page of the plan", page)]
    rows = [{key: str(value) for key, value in row.items()} for row in weights_rows(found, initial_domain_weights)]
    if len(rows) * len(rows[0]) <= MOST_CELLS:
        parts.append(markdown_table(rows))
    if found.held:
        parts.append(f"Mixture, to copy:\n\n```yaml\n{mixture_block(found.domain_weights).strip()}\n```")
    return "\n\n".join(parts)


def found_in_words(found: StartingWeights) -> str:
    """Return how domain weights were found, and which runs that took."""
    if found.found_by == "initial":
        return f"{found.strategy} starts from the initial weights, which took no run."
    how = {"search": "search", "planned": "swarm of short runs"}[found.found_by]
    verb = "holds" if found.held else "starts from"
    runs, shared = found.paid_runs, sum(run.shared for run in found.paid_runs)
    price = f"{counted(len(runs), 'run')}, {tokens_text(sum(run.tokens for run in runs))} tokens"
    also = f", {shared} of them proxies" if shared else ""
    seconds = duration(sum(run.seconds for run in runs))
    return f"{found.strategy} {verb} weights that a {how} found, at the price of {price}{also}, {seconds}."
