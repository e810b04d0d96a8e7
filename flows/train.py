"""Stage `train`: continual pretraining under the configured strategy."""

from prefect import flow

from tasks.stages.train import train_model
from tasks.workspace.preflight import checked_params
from tasks.workspace.stage_cli import run_stage


@flow(name="train")
def train() -> None:
    train_model(checked_params())


if __name__ == "__main__":
    run_stage(train, trains=True)
