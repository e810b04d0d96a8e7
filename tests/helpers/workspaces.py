"""A copy of the project to run the pipeline in, on text that every Python installation has, and its commands."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
CHARACTERS = 400_000  # of text per domain, more than the miniature takes
SECONDS_PER_COMMAND = 400


class Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


class Workspace:
    """A copy of the project with its own data and settings, and the commands that a user gives in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`python -m …` in the workspace."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "",  # the copied code is compiled once, and not by every run
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",  # stages call `python`
        }
        return subprocess.Popen(
            [*without_network(), sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, status: int = 0) -> str:
        """The same to its end; returns what it said."""
        return finished(self.start(*arguments), status)

    def run_here(self, program: str, *arguments: str, status: int = 0) -> str:
        """The same in this process, which has imported torch, Prefect and MLflow already; needs `prefect_server`."""
        messages = Messages()
        loggers = [logging.getLogger(name) for name in ("prefect", "tasks")]
        interrupt = signal.getsignal(signal.SIGINT)  # a command sets its own
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(printed):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", [program, *arguments])
            for each in loggers:
                each.addHandler(messages)
            try:
                runpy.run_path(str(PROJECT / f"{program.replace('.', '/')}.py"), run_name="__main__")
                ended = 0
            except SystemExit as stop:
                ended = stop.code
            except Exception:
                printed.write(traceback.format_exc())
                ended = 1
            finally:
                signal.signal(signal.SIGINT, interrupt)
                for each in loggers:
                    each.removeHandler(messages)
        output = "\n".join([*messages.found, printed.getvalue()])
        assert ended == status, output[-6000:]
        return output

    def start_code(self, code: str) -> subprocess.Popen[str]:
        """A few lines that use the workspace's own code, with pipes to them and from them."""
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def params(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write_params(self, tree: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


@cache
def without_network() -> list[str]:
    """What to put before a command to leave it no network but loopback; nothing where that is not permitted."""
    isolated = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    permitted = shutil.which("unshare") and subprocess.run([*isolated, "true"], capture_output=True, check=False)
    return isolated if permitted and permitted.returncode == 0 else []


def finished(process: subprocess.Popen[str], status: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=SECONDS_PER_COMMAND)
    finally:
        process.kill()
    assert process.returncode == status, f"{process.args}: status {process.returncode}\n{output[-6000:]}"
    return output


def code() -> Iterator[str]:
    """Modules of the standard library."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]:
        yield path.read_text(encoding="utf-8", errors="replace")


def licences() -> Iterator[str]:
    for path in sorted(installed().glob("*.dist-info/**/LICEN[SC]E*")):
        if path.is_file():
            yield path.read_text(encoding="utf-8", errors="replace")


def descriptions() -> Iterator[str]:
    """What installed packages say of themselves: the text below the headers of their metadata."""
    for path in sorted(installed().glob("*.dist-info/METADATA")):
        yield path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]


def installed() -> Path:
    return Path(sysconfig.get_path("purelib"))


def write_documents(path: Path, texts: Iterable[str]) -> None:
    left = CHARACTERS
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            if left > 0:
                file.write(json.dumps({"text": text[:20_000]}) + "\n")
                left -= len(text[:20_000])


def make_workspace(folder: Path) -> Workspace:
    """The project's files, three domains of real text in data/raw, the settings of tests/miniature.yaml."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (PROJECT / name).is_file():  # a file may be deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for name, texts in {"code": code(), "licences": licences(), "general": descriptions()}.items():
        write_documents(folder / "data/raw" / f"{name}.jsonl", texts)
    tree = yaml.safe_load((PROJECT / "tests/miniature.yaml").read_text())
    tree["data"]["path"] = "data/raw"
    tree["domains"] = {
        name: {"source": {"type": "jsonl", "path": f"{name}.jsonl"}, "max_tokens": tokens}
        for name, tokens in {"code": 40_000, "licences": 20_000, "general": 10_000}.items()
    }
    tree["base"]["domains"] = ["general"]
    tree["resources"] = {"threads": 1}
    made = Workspace(folder)
    made.write_params(tree)
    return made
