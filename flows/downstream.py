"""Optional: bits per byte of gold answers in mathematics, code and commands, for any number of models.

`python -m flows.downstream [MODEL_FOLDER ...]`; by default, of the base model and the trained one. It is no stage of
DVC, since nothing in the pipeline depends on it.
"""

from pathlib import Path

from prefect import flow

from tasks.stages.downstream import (
    evaluate_downstream,
    run_downstream,
    sample_questions,
    show_downstream,
    write_downstream,
)
from tasks.workspace import paths
from tasks.workspace.preflight import checked_params


@flow(name="downstream")
def downstream(models: list[Path]) -> None:
    params = checked_params()
    questions = sample_questions(params, paths.ARCHIVES)
    scores = {str(model): evaluate_downstream(model, questions, params) for model in models}
    show_downstream(write_downstream(scores))


if __name__ == "__main__":
    run_downstream(downstream)
