"""Optional: bits per byte of gold answers in mathematics, code and commands, for any number of models.

`python -m flows.downstream [MODEL_FOLDER ...]`; without folders, the base model and the trained one. No stage of DVC:
nothing of the pipeline depends on it.
"""

import argparse
from pathlib import Path

from prefect import flow

from tasks.stages.downstream import check_models, draw_questions, evaluate_downstream, show_downstream, write_downstream
from tasks.workspace import paths
from tasks.workspace.lock import run_stage
from tasks.workspace.preflight import checked_params


@flow(name="downstream")
def downstream(models: list[Path]) -> None:
    params = checked_params()
    questions = draw_questions(params, paths.ARCHIVES)
    scores = {str(model): evaluate_downstream(model, questions, params) for model in models}
    show_downstream(write_downstream(scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.downstream", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "models", metavar="MODEL_FOLDER", nargs="*", type=Path, help="default: models/base models/trained"
    )
    folders = parser.parse_args().models or [paths.BASE_MODEL, paths.TRAINED_MODEL]

    def checked() -> None:
        check_models(folders)  # before a server is started
        downstream(folders)

    run_stage(checked, arguments=[])
