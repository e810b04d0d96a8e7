"""Stage `report`: figures, one HTML page, metrics.json; the same in Prefect's UI and MLflow."""

from prefect import flow

from tasks.preflight import checked_params
from tasks.publish import publish_results
from tasks.report import write_report
from tasks.summary import print_summary
from tasks.workspace import run_stage


@flow(name="report")
def report() -> None:
    params = checked_params()
    write_report(params)
    publish_results(params)


if __name__ == "__main__":
    run_stage(report)
    print_summary(checked_params())
