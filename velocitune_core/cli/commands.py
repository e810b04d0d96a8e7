"""The sub-commands of `velocitune`: what each is for, the module that runs it, and the packages that it needs."""

from __future__ import annotations

from dataclasses import dataclass

ANYWHERE, PROGRAM, PIPELINE = "anywhere", "program", "pipeline"


@dataclass(frozen=True)
class Command:
    """A sub-command. Its arguments are those of the module that runs it."""

    name: str
    takes: str  # arguments in short, for the list of commands
    summary: str
    module: str
    kind: str  # ANYWHERE: a function `main(arguments)`; PROGRAM: `python -m module`; PIPELINE: that, in a workspace
    arguments: tuple[str, ...] = ()  # before those that are given
    extra: str = ""  # of the package, that brings what it needs


def _pipeline(name: str, module: str, summary: str, *arguments: str, takes: str = "") -> Command:
    return Command(name, takes, summary, module, PIPELINE, arguments, extra="lab")


COMMANDS = (
    Command("fit", "RUNS", "a table of finished runs → weights, predicted losses, a page", "fit.command", ANYWHERE),
    Command("export", "--to NAME", "found weights, in the format of another trainer", "export.command", ANYWHERE),
    Command("train", "JOB", "the training program, for one job file", "train", PROGRAM, extra="train"),
    _pipeline("init", "tasks.workspace.init", "make a workspace: settings, a place for data and results", takes="DIR"),
    _pipeline("plan", "flows.plan", "what the work will cost, before it starts"),
    _pipeline("mixture", "flows.pipeline", "find domain weights, and stop before the training", "--mixture"),
    _pipeline("run", "flows.pipeline", "find domain weights, train with them, write the report"),
    _pipeline("compare", "flows.pipeline", "train under several strategies, and compare them", "--compare"),
    _pipeline("serve", "tasks.views.serve", "Prefect and MLflow in a browser"),
    _pipeline("clean", "flows.clean", "what earlier runs left on the disk, and what may go"),
)
BY_NAME = {each.name: each for each in COMMANDS}

PACKAGES = {  # by extra: the modules without which its commands cannot start
    "": ("jinja2", "numpy", "pydantic", "scipy", "yaml"),
    "train": ("filelock", "safetensors", "tokenizers", "torch", "transformers"),
    "lab": ("datasets", "dvc", "filelock", "matplotlib", "mlflow", "prefect", "psutil", "torch", "transformers"),
}
