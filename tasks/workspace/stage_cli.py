"""The command line of a flow: its options, the workspace that it runs in, and how it ends."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.workspace.create import run_in
from tasks.workspace.fresh import starting_over
from tasks.workspace.lock import check_workspace, exclusive, return_settings_of_killed
from tasks.workspace.loopback import loopback_without_proxy
from tasks.workspace.prefect_logging import brief_console
from tasks.workspace.prefect_servers import check_named_server
from tasks.workspace.shown_errors import shown_to_user
from tasks.workspace.signals import end_on_signals, no_longer_watch
from tasks.workspace.stage_files import MissingInputError, check_inputs, described, stage_files
from velocitune_core.cli.commands import BY_NAME
from velocitune_core.cli.parser import path_argument
from velocitune_core.cli.programs import program_parser

DESCRIPTIONS = {  # of the pipeline, as the sub-commands of `velocitune` that start it
    "velocitune run": "Find domain weights, train with them, and write report/index.html: all stages in order (corpus, "
    "base, prepare, initial, proxies, targets, weights, train, report), except those that DVC reports as up to date. "
    "The settings are in params.yaml.",
    "velocitune mixture": "Find domain weights, show them, and stop before the training: the stages of "
    "`velocitune run` up to weights, except those that DVC reports as up to date. `velocitune run` continues from "
    "there, and `velocitune export` writes the weights for another trainer.",
    "velocitune compare": "Train under each strategy of `compare.runs` in params.yaml, with each seed, from the same "
    "start, and compare the results in comparison/report/index.html. What the strategies share (packed data, initial "
    "and target losses) is made first, except for stages that DVC reports as up to date.",
}


def command_line(name: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of `python -m flows.<name>`, with the options that every command has.

    The description is that of the program that runs; so is the name by default.
    """
    name = name or Path(sys.argv[0]).stem
    parser = program_parser(f"python -m flows.{name}", sys.modules["__main__"].__doc__, epilog=described(name))
    parser.add_argument(
        "--workspace",
        type=path_argument,
        metavar="DIR",
        default=Path(),
        help="work in this folder, with its own params.yaml, data and results; other paths are relative to it "
        "(default: %(default)s)",
    )
    return parser


def add_overrides(parser: argparse.ArgumentParser, what_for: str) -> None:
    """Add the option `-S KEY=VALUE`, which may be repeated."""
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="KEY=VALUE", help=f"{what_for} (may be repeated)"
    )


def overrides_of(given: argparse.Namespace) -> dict[str, Any]:
    """Return the values of `-S` by dotted key. Raises ConfigError for one that is not KEY=VALUE."""
    from tasks.workspace.params_file import parse_override

    return dict(map(parse_override, given.set))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments, of this process by default; continue in the folder of `--workspace` if it is another one.

    Overrides of a command that was killed are taken back there, before anything reads the settings.
    """
    given = parser.parse_args(arguments)
    if given.workspace.resolve() != Path.cwd():
        workspace = argparse.ArgumentParser(add_help=False)
        workspace.add_argument("--workspace")
        with user_errors_shown():
            run_in(given.workspace, workspace.parse_known_args(arguments)[1])
    with user_errors_shown():
        return_settings_of_killed()
    return given


@contextmanager
def user_errors_shown() -> Iterator[None]:
    """Print an error that the user can fix without a traceback, once, and exit with status 2; 1 if a run failed."""
    try:
        yield
    except Exception as error:
        if (shown := shown_to_user(error)) is None:
            raise
        sys.stderr.write(f"\n{shown.message}\n")
        sys.exit(shown.status)


@contextmanager
def flow_command() -> Iterator[None]:
    """Around a flow that a user started: end on signals, and print errors that the user can fix, once."""
    loopback_without_proxy()
    end_on_signals()
    brief_console()
    try:
        with user_errors_shown():
            yield
    finally:
        no_longer_watch()


def add_fresh(parser: argparse.ArgumentParser) -> None:
    """Add the option `--fresh`."""
    parser.add_argument(
        "--fresh", action="store_true", help="start runs over, instead of taking or continuing what earlier ones left"
    )


def run_stage(
    stage: Callable[[], object],
    *,
    comparing: bool = False,
    trains: bool = False,
    changes_params: bool = False,
    arguments: Sequence[str] | None = None,
) -> None:
    """Command line of a stage: check everything, hold the workspace, run.

    It ends with status 2, so that `dvc repro` records nothing, if params.yaml was edited while the stage ran.

    Args:
        trains: whether the stage starts runs, and so has the option `--fresh`.
        changes_params: whether it has the option `-S`, as the pipeline does.
    """
    from tasks.workspace.optional_stages import show_used_stages
    from tasks.workspace.params_file import params_snapshot, params_tree
    from tasks.workspace.preflight import checked_params, checked_settings

    def check() -> None:
        params = checked_settings(overrides, comparing) if overrides else checked_params(comparing)
        try:
            check_inputs(name, params)
        except MissingInputError:
            with exclusive():  # unless another command is at work, which may be making them
                raise

    def run() -> None:
        if overrides:
            settle_params(overrides, comparing)
        with params_snapshot() as snapshot:
            show_used_stages(params_tree(), comparing=comparing, reporting=name == "report")
            stage()
            snapshot.check_unchanged()

    parser, name, start = command_line(), Path(sys.argv[0]).stem, time.monotonic()
    if trains:
        add_fresh(parser)
    if changes_params:
        add_overrides(parser, "change params.yaml before the stage, e.g. -S mixture.objective.average=by_size")
    given = parse(parser, arguments)
    with user_errors_shown():
        overrides = overrides_of(given) if changes_params else {}
    with starting_over(trains and given.fresh):
        run_flow(run, check)
    if made := stage_files(name).writes:
        sys.stderr.write(f"{name}: made {', '.join(made)} in {time.monotonic() - start:.0f} s\n")


def run_flow(flow: Callable[[], object], check: Callable[[], object]) -> None:
    """Check what can be wrong before Prefect takes seconds to start, hold the workspace, run."""
    with flow_command():
        check()
        check_named_server()
        with exclusive():
            flow()


def run_pipeline(
    pipeline: Callable[..., Collection[str]],
    answers: Mapping[str, Callable[[], object]],
    *,
    arguments: Sequence[str] | None = None,
) -> None:
    """Command line of the whole pipeline: change the settings, run the stages, show the answer.

    Args:
        pipeline: the flow; returns the names of the stages that ran.
        answers: by goal, what shows its answer.
    """
    parser = _parser_of_pipeline()
    given = parse(parser, arguments)
    with flow_command():
        check_workspace()
        overrides = overrides_of(given)
        check_named_server()
        with exclusive():  # params.yaml is not changed while another run reads it
            settle_params(overrides, given.compare)  # before Prefect takes seconds to start
            goal = "compare" if given.compare else "mixture" if given.mixture else "report"
            ran = pipeline(goal=goal, fresh=given.fresh)
        if goal != "mixture" or "weights" not in ran:  # a stage that ran has shown its weights
            answers[goal]()


def _parser_of_pipeline() -> argparse.ArgumentParser:
    """Return the parser of the pipeline. A sub-command of `velocitune` that starts it has one goal, and gives it."""
    parser = command_line("pipeline")
    add_overrides(parser, "change params.yaml before the run, e.g. -S strategy.name=planned")
    if parser.prog in DESCRIPTIONS:
        parser.description = DESCRIPTIONS[parser.prog]
        parser.set_defaults(compare=False, mixture=False)
        for option in BY_NAME[parser.prog.split()[-1]].arguments:
            parser.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    else:
        goals = parser.add_mutually_exclusive_group()
        goals.add_argument(
            "--compare", action="store_true", help="compare the strategies of `compare.runs` instead of training one"
        )
        goals.add_argument(
            "--mixture", action="store_true", help="find the domain weights, and stop before the training"
        )
    add_fresh(parser)
    return parser


def settle_params(overrides: dict[str, Any], comparing: bool) -> None:
    """Write the overrides into params.yaml if they are valid, fetch the model that it names, and check everything.

    Raises ConfigError, and changes nothing, for overrides that are not valid; ConfigError or HubError after that.
    """
    from tasks.workspace.data_folder import warn_of_sources
    from tasks.workspace.evaluations import warn_of_evaluations
    from tasks.workspace.hub import fetch_named_model
    from tasks.workspace.own_settings import return_own_settings
    from tasks.workspace.params_file import override_params
    from tasks.workspace.preflight import checked_params, checked_settings

    checked_settings(overrides, comparing)
    override_params(overrides)
    try:
        fetch_named_model()
        params = checked_params(comparing)
    except ValueError:
        return_own_settings("this run", refused=True)
        raise
    warn_of_sources(params)
    warn_of_evaluations(params)
