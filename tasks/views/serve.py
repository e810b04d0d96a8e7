"""`python -m tasks.views.serve`: Prefect server, one worker and the MLflow UI on loopback, until Ctrl-C.

While it runs, every command in this folder uses its Prefect server, by a Prefect profile that is removed at the end.
Nothing is sent to a server before it is known to be the process that was started here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, NoReturn

import httpx
from filelock import Timeout

from tasks.views.mlflow_links import address_of, served_at
from tasks.views.serve_end import (
    SECONDS_TO_STOP,
    SERVED,
    end_left_over,
    stop_on_signals,
    stopping_runs,
)
from tasks.views.serve_profile import active_profile
from tasks.views.served_runs import HOME, POOL, ServedRuns
from tasks.workspace import paths
from tasks.workspace.command_end import say
from tasks.workspace.lock import WorkspaceBusyError
from tasks.workspace.loopback import (
    HOST,
    answers,
    is_free,
    listens,
    loopback_without_proxy,
    port_number,
    shell_without_proxy,
)
from tasks.workspace.writable import writing_in
from velocitune_core.cli.programs import program_parser
from velocitune_core.config import LAST_PORT, ConfigError, Tracking, load_params
from velocitune_core.train.stop import end_in_words
from velocitune_core.train.system_lock import system_lock

SECONDS_TO_START = 180
SECONDS_BETWEEN_LOOKS = 10  # for flow runs whose process was killed
QUIET = "--no-access-log --log-level warning"  # or every click in the UI writes dozens of lines
PREFECT = "Prefect server"
LOGS = {PREFECT: HOME / "server.log"}  # of servers that print what is no user's: retried errors, in full
LINES_SHOWN = 20  # of the log of a server that ended
BYTES_READ = 2**16  # of the end of that log, which may be long
PROGRAM = "python -m tasks.views.serve"


class ServeError(RuntimeError):
    """A server did not start, or ended by itself."""


def main() -> int:
    parser = program_parser(PROGRAM, __doc__, workspace="the folder to serve; default: the current one")
    in_clone = parser.prog == PROGRAM  # not started as a sub-command of `velocitune`
    for name, server, port in (("prefect", "the Prefect server", 4200), ("mlflow", "the MLflow UI", 5000)):
        how = f"of {server} (default %(default)s)" + (f"; or make serve {name.upper()}_PORT=…" if in_clone else "")
        parser.add_argument(f"--{name}-port", type=port_number, default=port, help=how)
    arguments = parser.parse_args()
    if arguments.prefect_port == arguments.mlflow_port:
        parser.error(f"--prefect-port and --mlflow-port are both {arguments.mlflow_port}; two servers need two ports")
    stop_on_signals()
    try:
        tracking = load_params(paths.PARAMS).tracking  # first: another folder is left as it is
        with _only_one_here():
            end_left_over()
            ports = {"prefect": arguments.prefect_port, "mlflow": arguments.mlflow_port}
            used = {name: ports[name] for name in ports if name == "prefect" or not tracking.is_server}
            _refuse_taken_ports(used, parser.prog)
            _serve(arguments.prefect_port, arguments.mlflow_port, tracking)
    except KeyboardInterrupt:
        return 0
    except ServeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _serve(prefect_port: int, mlflow_port: int, tracking: Tracking) -> None:
    serves_mlflow = not tracking.is_server
    api = f"http://{HOST}:{prefect_port}/api"
    first = shell_without_proxy()
    other_terminals = f"In other terminals first, as a proxy is set:  {first}\n" if first else ""
    loopback_without_proxy()
    os.environ["PREFECT_HOME"] = str(HOME.absolute())
    os.environ[SERVED] = str(Path.cwd())
    os.environ["PREFECT_SERVER_UI_API_URL"] = api  # else the page calls a server at port 4200
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # processes for features that are not used
    with ExitStack() as stack:
        servers = {}

        def start(name: str, *command: str) -> None:
            servers[name] = stack.enter_context(_running(command, LOGS.get(name)))

        start(PREFECT, "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
        if serves_mlflow:
            _prepare_store()
            os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking.uri  # every user of the machine can list command lines
            place = ["--artifacts-destination", "./mlartifacts"]
            port = ["--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
            start("MLflow UI", "mlflow", "server", *place, *port, "--uvicorn-opts", QUIET)
            stack.enter_context(served_at(f"http://{HOST}:{mlflow_port}"))
        _wait_until_ours(PREFECT, prefect_port, "/api/health", servers)
        os.environ["PREFECT_API_URL"] = api
        stack.enter_context(active_profile(api))
        with _answering():
            has_pool = ServedRuns(api).has_pool()
        if not has_pool:
            _prefect("work-pool", "create", POOL, "--type", "process")
        _prefect("deploy", "--all")
        with stopping_runs(_begun(api)) as runs:
            start("worker", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1")
            if serves_mlflow:
                _wait_until_ours("MLflow UI", mlflow_port, "/health", servers)
            sys.stderr.write(
                f"\nPrefect  http://{HOST}:{prefect_port}\n"
                f"MLflow   {address_of(tracking)}\n\n"
                f"{other_terminals}"
                f"Start a run, in {Path.cwd()}:  prefect deployment run velocitune/local --watch\n"
                "Stop: Ctrl-C; a run that is going on saves, and continues when it is started again\n"
                f"Messages of the Prefect server: {LOGS[PREFECT]}\n\n"
            )
            _watch(servers, runs)


def _begun(api: str) -> ServedRuns:
    """Return the flow runs of a server that has no worker yet, without those that earlier workers left unfinished."""
    runs = ServedRuns(api)
    with _answering():
        runs.end_dead()
        runs.resume()
        if runs.is_paused():
            say(
                f"Prefect: the work pool {POOL} is paused. No run begins until, in {Path.cwd()}:  "
                f"prefect work-pool resume {POOL}\n"
            )
    return runs


@contextmanager
def _answering() -> Iterator[None]:
    """Raise ServeError for a request that Prefect's server does not answer."""
    try:
        yield
    except httpx.HTTPError as error:
        raise ServeError(f"{PREFECT} does not answer ({error}); its last lines {_last_lines(PREFECT)}") from None


def _watch(servers: dict[str, subprocess.Popen[bytes]], runs: ServedRuns) -> NoReturn:
    """Go on until a server ends, and end flow runs whose process was killed meanwhile."""
    for second in count(1):
        _check(servers)
        if second % SECONDS_BETWEEN_LOOKS == 0:
            with suppress(httpx.HTTPError):  # a busy server; it is tried again
                runs.end_dead(at_once=False)
        time.sleep(1)
    raise AssertionError


@contextmanager
def _running(command: tuple[str, ...], log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own: Ctrl-C reaches only this program, which stops them in order.

    Args:
        log: what it prints is written there, in place of an earlier start's; None: it is printed.
    """
    with nullcontext() if log is None else _new_file(log) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], start_new_session=True, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _new_file(path: Path) -> BinaryIO:
    with writing_in(path.parent):
        path.parent.mkdir(exist_ok=True)
        return path.open("wb")


@contextmanager
def _only_one_here() -> Iterator[None]:
    """Hold this folder: a second server in it would share profile and database with the first."""
    lock = system_lock((paths.STATE / "serve.lock").absolute(), timeout=0)
    try:
        with writing_in(paths.STATE):
            lock.acquire()
    except Timeout:
        raise WorkspaceBusyError(
            "servers run for this folder already; stop them first (Ctrl-C where they run)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_taken_ports(ports: dict[str, int], program: str) -> None:
    """Raise ConfigError for ports that something else listens on, with the options of `program` that choose others."""
    if taken := {name: port for name, port in ports.items() if not is_free(port)}:
        listed = " and ".join(f"{port} ({name})" for name, port in taken.items())
        options = " ".join(f"--{name}-port {_another(port)}" for name, port in taken.items())
        variables = " ".join(f"{name.upper()}_PORT={_another(port)}" for name, port in taken.items())
        make = f", or `make serve` with {variables}" if program == PROGRAM else ""
        raise ConfigError(
            f"port {listed}: another program listens there, maybe servers of another folder; nothing was sent to it. "
            f"Stop it, or give `{program}` another port: {options}{make}"
        )


def _another(port: int) -> int:
    return port + 1 if port < LAST_PORT else port - 1


def _prepare_store() -> None:
    """Make MLflow's store ready in a process of its own, which gives the memory of MLflow back."""
    subprocess.run([sys.executable, "-m", "tasks.views.mlflow_store"], check=False)


def _prefect(*arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    if status:
        raise ServeError(f"`prefect {' '.join(arguments)}` ended ({end_in_words(status)}); its last lines are above")


def _wait_until_ours(name: str, port: int, path: str, servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Return when it is our server `name` that listens on a port, and it answers.

    Raises ServeError if it does not in time, or if a server ends.
    """
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        _check(servers)
        if listens(servers[name].pid, port) and answers(f"http://{HOST}:{port}{path}"):
            return
        time.sleep(0.5)
    raise ServeError(
        f"{name} did not answer on port {port} within {SECONDS_TO_START} s; its last lines {_last_lines(name)}"
    )


def _check(servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Raise ServeError if a server has ended."""
    for name, process in servers.items():
        if process.poll() is not None:
            raise ServeError(f"{name} ended ({end_in_words(process.returncode)}); its last lines {_last_lines(name)}")


def _last_lines(name: str) -> str:
    """Return where the last lines of a server are, and the lines themselves if they are in a log."""
    if name not in LOGS or not LOGS[name].exists():
        return "are above"
    with LOGS[name].open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - BYTES_READ))
        lines = log.read(BYTES_READ).decode(errors="replace").splitlines()[-LINES_SHOWN:]
    return "\n".join([f"in {LOGS[name]}:", *lines])


if __name__ == "__main__":
    sys.exit(main())
