"""Stage `train`: continual pretraining under the configured strategy."""

from prefect import flow

from tasks.stages.train import train_model
from tasks.views.table_rows import show_trained
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage


@flow(name="train", flow_run_name="train")
def train() -> None:
    show_trained(train_model(checked_params()))


if __name__ == "__main__":
    run_stage(train, trains=True)
