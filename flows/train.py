"""Stage `train`: continual pretraining, the mixture following the learning velocities."""

from prefect import flow

from tasks.stages.train import train_model
from tasks.workspace.lock import run_stage
from tasks.workspace.preflight import checked_params


@flow(name="train")
def train() -> None:
    train_model(checked_params())


if __name__ == "__main__":
    run_stage(train)
