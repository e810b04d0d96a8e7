"""`python -m tasks.views.serve`: Prefect server, one worker and the MLflow UI on loopback, until Ctrl-C.

While it runs, every command in this folder uses its Prefect server, by a Prefect profile that is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.workspace import paths
from velocitune_core.config import load_params, without_credentials
from velocitune_core.files import write_text

HOST = "127.0.0.1"
SECONDS_TO_START = 180
SECONDS_TO_STOP = 20
PROFILE = "velocitune-serving"  # of Prefect, active while this runs


class ServeError(RuntimeError):
    """A server did not start, or ended by itself."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.views.serve", description=__doc__)
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell ignores SIGINT for what it starts in the background
        signal.signal(number, signal.default_int_handler)
    try:
        _serve(arguments.prefect_port, arguments.mlflow_port)
    except KeyboardInterrupt:
        return 0
    except (ServeError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _serve(prefect_port: int, mlflow_port: int) -> None:
    store = load_params(paths.PARAMS).tracking.uri
    api = f"http://{HOST}:{prefect_port}/api"
    os.environ["PREFECT_HOME"] = str(Path(".prefect-home").absolute())
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with ExitStack() as stack:
        servers = {}

        def start(name: str, *command: str) -> None:
            servers[name] = stack.enter_context(_running(command))

        start("Prefect server", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
        if store.startswith("sqlite"):
            place = ["--backend-store-uri", store, "--artifacts-destination", "./mlartifacts"]
            port = ["--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
            start("MLflow UI", "mlflow", "server", *place, *port)
        _wait_until_up(f"{api}/health", servers)
        os.environ["PREFECT_API_URL"] = api
        stack.enter_context(_active_profile(api))
        _prefect("work-pool", "create", "local", "--type", "process", "--overwrite")
        _prefect("deploy", "--all")
        start("worker", "prefect", "worker", "start", "--pool", "local", "--type", "process")
        if store.startswith("sqlite"):
            _wait_until_up(f"http://{HOST}:{mlflow_port}/health", servers)
            store = f"http://{HOST}:{mlflow_port}"
        sys.stderr.write(
            f"\nPrefect  http://{HOST}:{prefect_port}\nMLflow   {without_credentials(store)}\n\n"
            "Start a run:  prefect deployment run velocitune/local --watch\nStop: Ctrl-C\n\n"
        )
        while True:
            _check(servers)
            time.sleep(1)


@contextmanager
def _running(command: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own: Ctrl-C reaches only this program, which stops them in order."""
    process = subprocess.Popen([sys.executable, "-m", *command], start_new_session=True)
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


@contextmanager
def _active_profile(api: str) -> Iterator[None]:
    """Make Prefect's active profile name the server `api`, for all commands in this folder."""
    profiles = Path(os.environ["PREFECT_HOME"]) / "profiles.toml"
    before = profiles.read_text(encoding="utf-8") if profiles.exists() else None
    if before and PROFILE in before:  # left when this program was killed
        before = None
    write_text(profiles, f'active = "{PROFILE}"\n\n[profiles.{PROFILE}]\nPREFECT_API_URL = "{api}"\n')
    try:
        yield
    finally:
        profiles.unlink(missing_ok=True)
        if before is not None:
            write_text(profiles, before)


def _prefect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], check=True, stdout=subprocess.DEVNULL)


def _wait_until_up(url: str, servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Return when the address answers. Raises ServeError if it does not in time, or if a server ends."""
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        _check(servers)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise ServeError(f"{url} did not answer within {SECONDS_TO_START} s")


def _check(servers: dict[str, subprocess.Popen[bytes]]) -> None:
    """Raise ServeError if a server has ended."""
    for name, process in servers.items():
        if process.poll() is not None:
            raise ServeError(f"{name} ended with status {process.returncode}; is its port taken?")


if __name__ == "__main__":
    sys.exit(main())
