"""The flow runs of the served deployments: their processes, and the end of those whose process is gone.

A flow run whose process was killed stays Running on Prefect's server until somebody ends it there.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil

from tasks.workspace.command_end import say

HOME = Path(".prefect-home")  # of Prefect, in every workspace
PAUSED = HOME / "paused-at-the-end"  # is there if the work pool was paused by `ServedRuns.pause`
POOL = "local"  # the work pool of prefect.yaml
RUN_ID = "PREFECT__FLOW_RUN_ID"  # variable of the process that a worker starts for a flow run, and of its children
UNFINISHED = ("PENDING", "RUNNING", "CANCELLING")
ATTEMPTS = 5  # of a request to a busy server
PAGE = 200  # runs or tasks per answer, the server's limit
KILLED = "Its process is gone: it was killed, or the computer was switched off"
STOPPED = "The servers of this workspace were stopped; a new run with the same parameters continues it"


@dataclass(frozen=True)
class FlowRun:
    """A flow run, as far as its end is concerned."""

    id: str
    name: str
    state: str
    started_by_worker: bool
    parent_task: str | None

    @staticmethod
    def of(answer: dict[str, Any]) -> FlowRun:
        by_worker = answer.get("work_pool_name") == POOL and not answer["parent_task_run_id"]
        state = answer["state_type"] or ""
        return FlowRun(answer["id"], answer["name"], state, by_worker, answer["parent_task_run_id"])


def flow_processes() -> dict[str, psutil.Process]:
    """Return the processes of this workspace's flow runs by the run's ID, whatever their parent is by now.

    A worker has each of them lead a session. Of several with an ID, such as ranks of `torchrun`, it is the first one.
    """
    found: dict[str, psutil.Process] = {}
    for process in session_leaders():
        with suppress(psutil.Error):
            variables = process.environ()
            if variables.get(RUN_ID) and variables.get("PREFECT_HOME") == str(HOME.absolute()):
                first = found.setdefault(variables[RUN_ID], process)
                if process.create_time() < first.create_time():
                    found[variables[RUN_ID]] = process
    return found


def session_leaders() -> Iterator[psutil.Process]:
    """Yield the processes that lead a session, but for this one, as far as they are of this user."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # ended meanwhile
            if os.getsid(process.pid) == process.pid != os.getpid() and running_of([process]):
                process.environ()  # or psutil.AccessDenied
                yield process


class ServedRuns:
    """The flow runs that Prefect's server at an address has."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._without_process: set[str] = set()

    def end_dead(self, *, at_once: bool = True) -> None:
        """End the runs that a worker started and whose process is gone, and stages whose pipeline has ended.

        Args:
            at_once: no worker is at work. Otherwise a run ends the second time that it has no process, as the worker
                may be about to start or to end it.
        """
        runs, processes = self._unfinished(), flow_processes()
        gone = {run.id for run in runs if run.started_by_worker and run.id not in processes}
        dead = gone if at_once else gone & self._without_process
        self._without_process = {run.id for run in runs if run.id in gone and run.state != "PENDING"}
        for run in runs:
            if run.id in dead:
                say(f"Prefect: «{run.name}» was {run.state.lower()}, and its process is gone: ended\n")
                self._end(run.id, "CRASHED", KILLED)
        unfinished = {run.id for run in runs} - dead
        for run in runs:
            if run.parent_task and self._pipeline_of(run.parent_task) not in unfinished:
                self._end(run.id, "CRASHED", KILLED)

    def end_stopped(self, ids: Iterable[str]) -> list[str]:
        """Show runs whose processes were stopped, and have ended, as cancelled, and return their names.

        Those that ended by themselves meanwhile are left as they are, and so are deleted ones.
        """
        answers: list[dict[str, Any]] = []
        for each in ids:
            with suppress(httpx.HTTPStatusError):  # it was deleted
                answers.append(self._request("GET", f"flow_runs/{each}"))
        stopped = [each for each in answers if each["state_type"] in ("CRASHED", *UNFINISHED)]
        for run in stopped:
            self._end(run["id"], "CANCELLED", STOPPED)
        return [run["name"] for run in stopped]

    def has_pool(self) -> bool:
        """Return whether the work pool was made before. It is not made anew, which would lose a user's changes."""
        pools = {"name": {"any_": [POOL]}, "type": {"any_": ["process"]}}
        return bool(self._request("POST", "work_pools/filter", work_pools=pools))

    def is_paused(self) -> bool:
        """Return whether the worker starts no runs."""
        return bool(self._request("GET", f"work_pools/{POOL}")["is_paused"])

    def pause(self) -> None:
        """Let the worker start no run any more, until `resume`."""
        if not self.is_paused():
            PAUSED.parent.mkdir(exist_ok=True)
            PAUSED.touch()
            self._request("PATCH", f"work_pools/{POOL}", is_paused=True)

    def resume(self) -> None:
        """Undo `pause`, also that of an earlier process; a pause that a user has set stays."""
        if PAUSED.exists():
            self._request("PATCH", f"work_pools/{POOL}", is_paused=False)
            PAUSED.unlink()

    def waiting(self) -> int:
        """Return how many runs wait for a worker."""
        state = {"type": {"any_": ["SCHEDULED"]}}
        pools = {"name": {"any_": [POOL]}}
        return int(self._request("POST", "flow_runs/count", flow_runs={"state": state}, work_pools=pools))

    def _unfinished(self) -> list[FlowRun]:
        state = {"type": {"any_": list(UNFINISHED)}}
        return [FlowRun.of(each) for each in self._all("flow_runs/filter", flow_runs={"state": state})]

    def _all(self, path: str, **content: Any) -> list[dict[str, Any]]:
        """Return what the server finds, page by page."""
        found: list[dict[str, Any]] = []
        while len(found) % PAGE == 0:
            answer = self._request("POST", path, **content, limit=PAGE, offset=len(found), sort="ID_DESC")
            found += answer
            if not answer:
                break
        return found

    def _pipeline_of(self, task: str) -> str | None:
        """Return the ID of the flow run that called the one of a task run."""
        try:
            return self._request("GET", f"task_runs/{task}")["flow_run_id"]
        except httpx.HTTPStatusError:  # deleted
            return None

    def _end(self, run: str, state: str, message: str) -> None:
        """Set the state of a flow run, and of its tasks that have not ended."""
        tasks = self._all(
            "task_runs/filter",
            flow_runs={"id": {"any_": [run]}},
            task_runs={"state": {"type": {"any_": [*UNFINISHED, "SCHEDULED"]}}},
        )
        for place in (f"flow_runs/{run}", *(f"task_runs/{task['id']}" for task in tasks)):
            self._request("POST", f"{place}/set_state", force=True, state={"type": state, "message": message})

    def _request(self, method: str, path: str, **content: Any) -> Any:
        return request(method, f"{self._api}/{path}", **content)


def request(method: str, address: str, **content: Any) -> Any:
    """Return what Prefect's server answers; it is busy as long as another one writes into its SQLite file."""
    for attempt in range(1, ATTEMPTS + 1):
        answer = httpx.request(method, address, json=content or None, timeout=20)
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE or attempt == ATTEMPTS:
            break
        time.sleep(1)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def running_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of some processes that have not ended; a zombie has, whoever should wait for it."""
    running = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running


def signalled(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to processes that may have ended."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def kill_groups(processes: list[psutil.Process]) -> None:
    """Kill processes that lead a group, and all that is in it."""
    for process in processes:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
