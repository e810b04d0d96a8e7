"""The comparison of finished runs: results/comparison.json, its page and figures, and what the tools show of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from prefect import task

from tasks.runs.compared import comparison_settings
from tasks.runs.jobs import initial_domain_weights
from tasks.runs.own_targets import OwnTargets
from tasks.runs.swarm import objective_of
from tasks.stages.compare import label_of_plan, measured
from tasks.stages.proxies import read_proxies
from tasks.views.mlflow_recorded import log_recorded
from tasks.views.mlflow_result import COMPARISON_FOLDER, show_comparison
from tasks.views.mlflow_runs import Tracker
from tasks.views.prefect_artifacts import publish_table
from tasks.views.terminal import print_lines, print_table
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture, compared_plans
from velocitune_core.comparison.checks import check_comparison
from velocitune_core.comparison.statistics import summarise
from velocitune_core.comparison.tables import comparison_metrics, formatted_comparison, note_of_marks
from velocitune_core.config import Params
from velocitune_core.contracts import ComparedRun, Comparison, InitialLosses, Manifest, StartingWeights, Targets
from velocitune_core.files import replacing
from velocitune_core.report.compared_mixtures import mixture_rows
from velocitune_core.report.comparison_page import comparison_figures, plan_pages, render_comparison
from velocitune_core.report.fitted_plan import FittedPlan
from velocitune_core.report.html import save_png

logger = logging.getLogger(__name__)


@task(name="write comparison")
def write_comparison(
    params: Params,
    runs: Sequence[ComparedRun],
    plans: Mapping[str, StartingWeights],
    own: Mapping[str, OwnTargets],
) -> Comparison:
    """Write results/comparison.json, and comparison/report with one page, its figures, and the plans.

    Args:
        plans: by name.
        own: targets by label, of those that have their own.

    Raises ContractError for runs that cannot be compared.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    targets, settings, proxies = Targets.read(paths.TARGETS), comparison_settings(params), read_proxies()
    goals = targets.losses()
    without_gap = [name for name, loss in initial.losses.items() if goals[name] >= loss]
    comparison = Comparison(
        baseline=settings.baseline,
        frontier=[label for label in settings.frontier_labels if any(run.label == label for run in runs)],
        retained=without_gap if settings.retained is None else list(settings.retained),
        initial=initial.losses,
        targets=goals,
        initial_domain_weights=initial_domain_weights(params, manifest),
        domain_tokens={name: domain.train.tokens for name, domain in manifest.domains.items()},
        proxy_tokens=sum(proxy.tokens for proxy in proxies),
        proxy_seconds=sum(proxy.seconds for proxy in proxies),
        runs=list(runs),
        initial_measured=initial.measured,
        target_laws={name: each.evidence.law for name, each in targets.domains.items() if each.evidence is not None},
    )
    check_comparison(comparison)
    comparison.write(paths.COMPARISON)
    fitted = {name: _fitted(params, name, plan, own) for name, plan in plans.items()}
    figures = comparison_figures(comparison, fitted)
    with replacing(paths.COMPARISON_REPORT) as folder:
        (folder / "figures").mkdir(parents=True)
        for name, plan in plans.items():
            plan.write(folder / paths.PLANS / f"{name}.json")
        for name, plan_page in plan_pages(comparison, fitted).items():
            (folder / paths.PLANS / f"{name}.html").write_text(plan_page, encoding="utf-8")
        for each in figures:
            save_png(each.figure, folder / "figures" / f"{each.name}.png")
        page = render_comparison(comparison, figures, fitted, manifest)
        (folder / "index.html").write_text(page, encoding="utf-8")
    return comparison


def _fitted(params: Params, name: str, plan: StartingWeights, own: Mapping[str, OwnTargets]) -> FittedPlan:
    """Return a plan with its law, for the pages."""
    assert plan.planned is not None
    mixture = compared_mixture(params, *compared_plans(params)[name])
    manifest, initial, targets = measured(own.get(label_of_plan(params, name)))
    objective = objective_of(params, mixture, manifest, initial, targets)
    return FittedPlan.of(plan.planned, objective, targets, mixture.swarm.bootstrap)


@task(name="publish comparison")
def publish_comparison(params: Params, comparison: Comparison) -> None:
    """Show results and mixtures in Prefect's UI and on the terminal, and log page, figures and metrics to MLflow."""
    rows, mixtures = formatted_comparison(comparison), mixture_rows(summarise(comparison))
    marks = note_of_marks(rows)
    title = ". ".join(filter(None, ["Strategies compared, mean ± 95 % interval over seeds", marks]))
    publish_table("comparison", title, rows)
    publish_table("mixtures", "Mixtures, mean over run and seeds", mixtures)
    print_table("Strategies compared", rows)
    print_lines([marks] if marks else [])
    print_table("Mixtures, mean over run and seeds", mixtures)
    tracker = Tracker(params, comparing=True)
    tracker.log_artifact(paths.COMPARISON_REPORT, COMPARISON_FOLDER)
    tracker.log_artifact(paths.COMPARISON)
    tracker.log_metrics(comparison_metrics(comparison))
    show_comparison(tracker, comparison)
    log_recorded(tracker)
    tracker.finish()
    logger.info("comparison: %s", paths.COMPARISON_REPORT / "index.html")
