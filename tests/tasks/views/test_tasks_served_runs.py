"""Flow runs whose process is gone are ended on a real Prefect server; those with a process go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from prefect_databases import prefect_server
from servers import environment
from trainings import wait_for

from tasks.views.serve import _begun
from tasks.views.serve_end import SERVED, end_left_over, stopping_runs
from tasks.views.served_runs import KILLED, POOL, RUN_ID, ServedRuns, flow_processes, request

FEW = 8  # runs or tasks per answer of the server, whose limit is 200 otherwise

# Instead of a flow: ends at SIGTERM, after it has said so.
FLOW = """
import pathlib, signal, sys
def end(*_):
    pathlib.Path("saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # also where shells start it in the background, with SIGINT ignored
pathlib.Path("runs").touch()
while True: signal.pause()
"""


class Server:
    """A Prefect server with a work pool and a deployment."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.request("POST", "work_pools/", name=POOL, type="process")
        self.flow = self.request("POST", "flows/", name="velocitune")["id"]
        given = {"name": "local", "flow_id": self.flow, "work_pool_name": POOL}
        self.deployment = self.request("POST", "deployments/", **given)["id"]

    def request(self, method: str, path: str, **content: Any) -> Any:
        return request(method, f"{self.api}/{path}", **content)

    def run(self, state: str) -> str:
        """Return the ID of a run of the deployment, in a state."""
        run = self.request("POST", f"deployments/{self.deployment}/create_flow_run", state={"type": "SCHEDULED"})["id"]
        return self.put(run, state)

    def put(self, run: str, state: str) -> str:
        if state == "CANCELLING":
            self.put(run, "RUNNING")
        if state != "SCHEDULED":
            self.request("POST", f"flow_runs/{run}/set_state", state={"type": state}, force=True)
        return run

    def stage(self, pipeline: str | None = None) -> str:
        """Return the ID of a running flow that another one has called, or nobody."""
        parent = {}
        if pipeline is not None:
            task = {"flow_run_id": pipeline, "task_key": "stage", "dynamic_key": "0", "state": {"type": "RUNNING"}}
            parent = {"parent_task_run_id": self.request("POST", "task_runs/", **task)["id"]}
        return self.put(self.request("POST", "flow_runs/", flow_id=self.flow, **parent)["id"], "RUNNING")

    def state(self, run: str) -> str:
        return self.request("GET", f"flow_runs/{run}")["state_type"]

    def tasks(self, run: str) -> set[str]:
        found = self.request("POST", "task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {each["state_type"] for each in found}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Server]:
    limit = {"PREFECT_SERVER_API_DEFAULT_LIMIT": str(FEW)}
    with prefect_server(prefect_database, tmp_path_factory.mktemp("server"), **limit) as (_, api):
        yield Server(api)


@pytest.fixture
def server(prefect: Server, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server without runs, which has the tests of this module one after the other, and a folder to work in."""
    monkeypatch.setattr("tasks.views.served_runs.PAGE", FEW)
    while found := prefect.request("POST", "flow_runs/filter"):
        for run in found:
            prefect.request("DELETE", f"flow_runs/{run['id']}")
    return prefect


@contextmanager
def process_of(run: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of a flow run in this workspace, as a worker does; without an ID, that of a server."""
    command = [sys.executable, "-c", FLOW]
    own = environment(Path.cwd(), **{RUN_ID: run, **variables})
    with subprocess.Popen(command, env=own, start_new_session=True) as process:
        try:
            wait_for(Path("runs").exists)
            yield process
        finally:
            process.kill()


def test_runs_without_a_process_are_ended_with_their_stages_and_tasks(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = [server.run(state) for state in ("PENDING", "RUNNING", "CANCELLING")]
    alive, waits, finished, own = (
        server.run("RUNNING"),
        server.run("SCHEDULED"),
        server.run("COMPLETED"),
        server.stage(),
    )
    stages = {run: server.stage(run) for run in (dead[1], alive, finished, own)}
    with process_of(alive):
        ServedRuns(server.api).end_dead()
    assert [server.state(run) for run in dead] == ["CRASHED"] * 3
    assert server.request("GET", f"flow_runs/{dead[1]}")["state"]["message"] == KILLED
    assert server.tasks(dead[1]) == {"CRASHED"}
    assert [server.state(run) for run in (alive, waits, finished, own)] == [
        "RUNNING",
        "SCHEDULED",
        "COMPLETED",
        "RUNNING",
    ]
    assert [server.state(stage) for stage in stages.values()] == ["CRASHED", "RUNNING", "CRASHED", "RUNNING"]
    assert capsys.readouterr().err.count("its process is gone: ended") == 3


def test_beside_a_worker_a_run_must_be_without_a_process_twice(server: Server) -> None:
    begins, dead = server.run("PENDING"), server.run("RUNNING")
    runs = ServedRuns(server.api)
    runs.end_dead(at_once=False)
    assert (server.state(begins), server.state(dead)) == ("PENDING", "RUNNING")
    runs.end_dead(at_once=False)
    assert (server.state(begins), server.state(dead)) == ("PENDING", "CRASHED")


def test_more_runs_than_an_answer_has_are_ended(server: Server) -> None:
    dead = [server.run("RUNNING") for _ in range(2 * FEW)]
    ServedRuns(server.api).end_dead()
    assert {server.state(run) for run in dead} == {"CRASHED"}


def test_all_tasks_of_an_ended_run_end_and_all_waiting_runs_are_counted(server: Server) -> None:
    dead = server.run("RUNNING")
    task = {"flow_run_id": dead, "task_key": "proxy", "state": {"type": "RUNNING"}}
    for number in range(FEW + 1):
        server.request("POST", "task_runs/", **task, dynamic_key=str(number))
        server.run("SCHEDULED")
    runs = ServedRuns(server.api)
    runs.end_dead()
    tasks = {"state": {"type": {"any_": ["RUNNING"]}}}
    assert server.request("POST", "task_runs/count", task_runs=tasks, flow_runs={"id": {"any_": [dead]}}) == 0
    assert runs.waiting() == FEW + 1


@pytest.mark.parametrize("by_user", [False, True])
def test_a_pause_of_the_end_is_undone_at_the_next_start_and_one_of_the_user_stays(
    server: Server, by_user: bool, capsys: pytest.CaptureFixture[str], own_signals: None
) -> None:
    server.request("PATCH", f"work_pools/{POOL}", is_paused=by_user)
    with stopping_runs(ServedRuns(server.api)):
        assert server.request("GET", f"work_pools/{POOL}")["is_paused"] == by_user
    assert server.request("GET", f"work_pools/{POOL}")["is_paused"]
    assert ServedRuns(server.api).has_pool()
    _begun(server.api)
    assert server.request("GET", f"work_pools/{POOL}")["is_paused"] == by_user
    assert (
        f"No run begins until, in {Path.cwd()}:  prefect work-pool resume local" in capsys.readouterr().err
    ) == by_user


def test_a_run_is_stopped_before_its_servers_and_no_other_begins(
    server: Server, capsys: pytest.CaptureFixture[str], own_signals: None
) -> None:
    server.request("PATCH", f"work_pools/{POOL}", is_paused=False)
    run, done, _ = server.run("RUNNING"), server.run("COMPLETED"), server.run("SCHEDULED")
    with (
        process_of(run) as process,
        process_of(done),
        pytest.raises(KeyboardInterrupt),
        stopping_runs(ServedRuns(server.api)),
    ):
        raise KeyboardInterrupt
    assert process.returncode == 0 and Path("saved").exists()
    assert (server.state(run), server.state(done)) == ("CANCELLED", "COMPLETED")
    assert server.request("GET", f"work_pools/{POOL}")["is_paused"]
    said = capsys.readouterr().err
    assert said.count("is cancelled; a new run with the same parameters continues it") == 1
    assert "stopping the flow run, which saves a checkpoint" in said and "1 run will begin when" in said


@pytest.fixture
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_run_is_stopped_also_where_no_file_can_be_made(
    server: Server, monkeypatch: pytest.MonkeyPatch, own_signals: None
) -> None:
    """As on a full disk: the pause is not noted then, and not made."""
    server.request("PATCH", f"work_pools/{POOL}", is_paused=False)
    Path("taken").touch()
    monkeypatch.setattr("tasks.views.served_runs.PAUSED", Path("taken/paused"))
    run = server.run("RUNNING")
    with process_of(run) as process, stopping_runs(ServedRuns(server.api)):
        pass
    assert process.returncode == 0 and server.state(run) == "CANCELLED"
    assert not server.request("GET", f"work_pools/{POOL}")["is_paused"]


def test_a_run_that_was_deleted_keeps_no_other_from_being_shown_as_cancelled(server: Server) -> None:
    stopped = server.run("RUNNING")
    assert len(ServedRuns(server.api).end_stopped([str(uuid4()), stopped])) == 1
    assert server.state(stopped) == "CANCELLED"


STUBBORN = FLOW.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


def test_ctrl_c_kills_a_run_that_a_killed_start_left_and_that_does_not_end(workspace: Path) -> None:
    own = environment(workspace, **{RUN_ID: "1", SERVED: str(workspace)})
    start = "import signal; from tasks.views.serve_end import end_left_over; "
    start += "signal.signal(signal.SIGINT, signal.default_int_handler); end_left_over()"
    with subprocess.Popen([sys.executable, "-c", STUBBORN], env=own, start_new_session=True) as flow:
        try:
            wait_for(Path("runs").exists)
            own_of_start = environment(workspace)
            with subprocess.Popen([sys.executable, "-c", start], env=own_of_start, stderr=subprocess.PIPE) as other:
                assert other.stderr is not None
                while b"Ctrl-C kills it at once" not in other.stderr.readline():
                    pass
                other.send_signal(signal.SIGINT)
                other.wait(30)
            assert flow.wait(20) == -signal.SIGKILL
        finally:
            flow.kill()


def test_what_a_killed_start_left_is_ended_and_nothing_else(workspace: Path) -> None:
    served = {SERVED: str(workspace)}
    with (
        process_of("1", **served) as flow,
        process_of("", **served) as server,
        process_of("", **{SERVED: str(workspace.parent)}) as other,
    ):
        assert flow_processes() == {"1": psutil.Process(flow.pid)}
        end_left_over()
        assert (flow.wait(20), server.wait(20)) == (0, -signal.SIGINT)
        assert other.poll() is None


SERVE = f"""
import subprocess, sys, time
from tasks.views.serve_end import stop_on_signals, stopping_runs
from tasks.views.served_runs import ServedRuns
stop_on_signals()
with stopping_runs(ServedRuns("http://127.0.0.1:1/api")):
    subprocess.Popen([sys.executable, "-c", {FLOW.replace("    sys.exit()", "")!r}, ], start_new_session=True)
    while True: time.sleep(1)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_kills_a_run_that_does_not_end(workspace: Path, first: signal.Signals) -> None:
    if signal.getsignal(first) is signal.SIG_IGN:
        pytest.skip("ignored here, and so by what is started here: nohup")
    own = environment(workspace, **{RUN_ID: "1"})
    with subprocess.Popen([sys.executable, "-c", SERVE], env=own, stderr=subprocess.PIPE, text=True) as serve:
        wait_for(Path("runs").exists, 60)
        os.kill(serve.pid, first)
        wait_for(Path("saved").exists, 60)
        since = time.monotonic()
        os.kill(serve.pid, signal.SIGINT)
        _, said = serve.communicate(timeout=60)
    assert time.monotonic() - since < 20 and flow_processes() == {}
    assert said.index("stopping the flow run") < said.index("killed; the next command in this folder")


class Busy(BaseHTTPRequestHandler):
    """Answers as Prefect's server does while its database is locked, and then as it does again."""

    answers = iter([503, 200])

    def do_GET(self) -> None:
        self.send_response(next(self.answers))
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


def test_a_request_to_a_busy_server_is_repeated() -> None:
    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        thread = threading.Thread(target=lambda: [busy.handle_request() for _ in range(2)])
        thread.start()
        assert request("GET", f"http://127.0.0.1:{busy.server_port}/api/flow_runs") == []
        thread.join()
