"""Stage `report`: figures, one HTML page, metrics.json; the same in Prefect's UI and in MLflow."""

from prefect import flow

from tasks.stages.report import read_results, reported_runs, write_report
from tasks.views.publish import publish_results
from tasks.views.summary import print_summary
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage


@flow(name="report", flow_run_name="report")
def report() -> None:
    params = checked_params()
    write_report(params)
    publish_results(params, read_results(params), reported_runs(params))


def show_results() -> None:
    params = checked_params()
    print_summary(read_results(params), params.tracking)


if __name__ == "__main__":
    run_stage(report)
    show_results()
