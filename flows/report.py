"""Stage `report`: figures, one HTML page, metrics.json; the same in Prefect's UI and MLflow."""

from prefect import flow

from tasks.stages.report import write_report
from tasks.views.publish import publish_results
from tasks.views.summary import print_summary
from tasks.workspace.lock import run_stage
from tasks.workspace.preflight import checked_params


@flow(name="report")
def report() -> None:
    params = checked_params()
    write_report(params)
    publish_results(params)


if __name__ == "__main__":
    run_stage(report)
    print_summary(checked_params())
