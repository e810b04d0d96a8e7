"""Start the deployment `local`, cancel it while its proxies train: they save, stop, and are not started again.

params.yaml is then what it was before.

Usage: `python .ci/cancel_a_deployment.py API`, in a workspace whose server listens there and has a worker.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

OVERRIDES = {"training.token_budget": 100_000_000}  # proxies that do not end by themselves


def main(api: str) -> None:
    def request(method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = httpx.request(method, f"{api}/{path}", json=content or None, timeout=60)
        answer.raise_for_status()
        return answer.json()

    before, settings = set(Path("runs").iterdir()), Path("params.yaml").read_bytes()
    deployment = request("GET", "deployments/name/velocitune/local")["id"]
    started = request("POST", f"deployments/{deployment}/create_flow_run", parameters={"overrides": OVERRIDES})["id"]
    wait_for("a proxy that trains", lambda: any(has_stepped(run) for run in new_runs(before)))
    request("POST", f"flow_runs/{started}/set_state", state={"type": "CANCELLING"})
    wait_for("the state CANCELLED", lambda: request("GET", f"flow_runs/{started}")["state_type"] == "CANCELLED")
    wait_for("the end of the training programs", lambda: not training_programs())
    wait_for("the settings of before", lambda: Path("params.yaml").read_bytes() == settings)
    for run in new_runs(before):
        starts = (run / "events.jsonl").read_text().count('"event":"started"')
        assert starts == 1, f"{run} was started {starts} times"
        if has_stepped(run):
            assert list(run.glob("checkpoints/step-*")), f"{run} was not saved"


def new_runs(before: set[Path]) -> list[Path]:
    """Return folders of runs that have begun since."""
    return [run for run in set(Path("runs").iterdir()) - before if (run / "events.jsonl").exists()]


def has_stepped(run: Path) -> bool:
    return '"event":"step"' in (run / "events.jsonl").read_text()


def training_programs() -> list[psutil.Process]:
    """Return the training programs of this workspace, whatever their parent is by now."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        mine = process.info["cwd"] == str(Path.cwd()) and process.info["status"] != psutil.STATUS_ZOMBIE
        if mine and "velocitune_core.train" in (process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} after {seconds} s"
        time.sleep(0.2)


if __name__ == "__main__":
    main(*sys.argv[1:])
