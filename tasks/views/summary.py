"""The end of a pipeline on the terminal: the result, and where to find more."""

from __future__ import annotations

from rich.console import Console

from tasks.views.mlflow_links import address_of
from tasks.views.terminal import print_table
from tasks.workspace import paths
from velocitune_core.config import load_params
from velocitune_core.report.summary import ReportData, formatted_rows, key_figures


def print_summary(results: ReportData) -> None:
    """Print the result per domain, key figures, and where report, model and user interfaces are."""
    print_table("Result", formatted_rows(results))
    console = Console(stderr=True, highlight=False)
    for label, text in key_figures(results).items():
        console.print(f"{label}: {text}", soft_wrap=True)
    console.print(
        f"\nReport   {paths.REPORT / 'index.html'}\nModel    {paths.TRAINED_MODEL}\n"
        f"MLflow   make serve, then {address_of(load_params(paths.PARAMS).tracking)}\n"
        "Prefect  make serve, then http://127.0.0.1:4200",
        soft_wrap=True,
    )
