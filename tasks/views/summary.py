"""The end of a run on the terminal: what came out, and where to look."""

from __future__ import annotations

from rich.console import Console

from tasks.stages.report import read_results
from tasks.views.prefect_artifacts import print_table
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.report.summary import formatted_rows, key_figures


def print_summary(params: Params) -> None:
    """Print the result per domain, key figures, and the places of report, model and user interfaces."""
    data = read_results(params)
    print_table("Result", formatted_rows(data))
    console = Console(stderr=True, highlight=False)
    for label, text in key_figures(data).items():
        console.print(f"{label}: {text}", soft_wrap=True)
    console.print(
        f"\nReport   {paths.REPORT / 'index.html'}\nModel    {paths.TRAINED_MODEL}\n"
        f"MLflow and Prefect   make serve, then http://127.0.0.1:5000 and http://127.0.0.1:4200",
        soft_wrap=True,
    )
