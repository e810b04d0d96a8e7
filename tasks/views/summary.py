"""The end of a pipeline, on the terminal and on the flow run in Prefect's UI: the answer, and where to find more."""

from __future__ import annotations

from prefect.settings import get_current_settings

from tasks.views.mlflow_links import address_of
from tasks.views.prefect_artifacts import answer_markdown, publish_markdown
from tasks.views.terminal import print_lines, print_table
from tasks.workspace import paths
from velocitune_core.config import Tracking
from velocitune_core.contracts import Comparison
from velocitune_core.report.headline import answer, comparison_answer
from velocitune_core.report.summary import ReportData, formatted_rows, key_figures

PREFECT = "http://127.0.0.1:4200 (make serve or velocitune serve starts both)"
OPTIONAL = ("flags", "target error", "epochs", "tokens")  # columns, given up in a narrow terminal in this order
SHOWN = ("answer", "mixture", "only measured")  # key figures; the table and earlier lines have the others


def print_summary(results: ReportData, tracking: Tracking) -> None:
    """Print the result per domain, the answer, and where report, model and user interfaces are."""
    print_table("Result", formatted_rows(results), OPTIONAL)
    figures = key_figures(results)
    found, *others = [f"{label}: {figures[label]}" for label in SHOWN if label in figures]
    if figures["mixture"] in found:  # that it did not move
        others.remove(f"mixture: {figures['mixture']}")
    print_lines(["", found, *others, ""])
    print_lines([f"report   {paths.REPORT / 'index.html'}", f"model    {paths.TRAINED_MODEL}", *_views(tracking)])


def print_comparison(comparison: Comparison, tracking: Tracking) -> None:
    """Print the answer of a comparison, and where its page and the user interfaces are."""
    page = f"page     {paths.COMPARISON_REPORT / 'index.html'}"
    print_lines(["", f"answer: {comparison_answer(comparison)}", "", page, *_views(tracking)])


def publish_answer(results: ReportData, tracking: Tracking) -> None:
    """Put the answer on the flow run that this is called in, as an artifact."""
    links = {
        "report": str(paths.REPORT / "index.html"),
        "trained model": str(paths.TRAINED_MODEL),
        "MLflow": address_of(tracking),
    }
    rows = [{key: cell for key, cell in row.items() if key != "flags"} for row in formatted_rows(results)]
    publish_markdown(
        "answer", "The answer, per domain, and where to find more", answer_markdown(answer(results), rows, links)
    )


def publish_comparison_answer(comparison: Comparison, tracking: Tracking) -> None:
    """The same of a comparison."""
    place = paths.COMPARISON_REPORT / "index.html"
    text = f"{comparison_answer(comparison)}\n\n- [page]({place.absolute().as_uri()}): `{place}`\n"
    publish_markdown("answer", "The answer of the comparison", f"{text}- [MLflow]({address_of(tracking)})")


def _views(tracking: Tracking) -> list[str]:
    return [f"MLflow   {address_of(tracking)}", f"Prefect  {get_current_settings().ui_url or PREFECT}"]
