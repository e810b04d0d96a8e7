"""Stage `train`: continual pretraining, the mixture following the learning velocities."""

from prefect import flow

from tasks.preflight import checked_params
from tasks.train import train_model
from tasks.workspace import run_stage


@flow(name="train")
def train() -> None:
    train_model(checked_params())


if __name__ == "__main__":
    run_stage(train)
