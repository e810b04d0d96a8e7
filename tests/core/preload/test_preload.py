"""Runs forked from a preloaded process: they are as those that are started by themselves, and outlive its end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from trainings import wait_for

from velocitune_core.preload import fork_server, forked_process, start
from velocitune_core.preload.forked_process import UNKNOWN_STATUS, ForkedProcess
from velocitune_core.preload.start import Process, start_process
from velocitune_core.train.stop import STOP_SIGNALS

PROJECT = Path(__file__).parents[3]
PROGRAM = """
import atexit, json, os, signal, sys
import early
atexit.register(print, "at exit")
ours = [name for name in sys.modules if name.split(".")[0] in {"velocitune_core", "tasks", "flows"}]
print(json.dumps({
    "argv": sys.argv[1:], "orig_argv": sys.orig_argv, "folder": os.getcwd(), "path": sys.path[0], "ours": ours,
    "variable": os.environ.get("VARIABLE"), "early": [early.pid, early.value], "pid": os.getpid(),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "open": sorted(os.listdir("/proc/self/fd")),
}), flush=True)
match sys.argv[1]:
    case "wait": signal.pause()
    case "raise": raise RuntimeError("as it must")
    case "fault": os.kill(os.getpid(), signal.SIGSEGV)
    case status: sys.exit(int(status))
"""
EARLY = (
    "import os, sys; pid = os.getpid(); value = os.environ.get('OMP_NUM_THREADS'); print('imported', file=sys.stderr)"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module `program` and a library `early`, which is all that is preloaded."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries/early.py").write_text(EARLY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libraries"), prepend=os.pathsep)
    monkeypatch.setattr(forked_process, "LIBRARIES", ("early",))
    servers = start._Servers()
    monkeypatch.setattr(start, "_SERVERS", servers)
    yield tmp_path
    servers.close()


def begin(*arguments: str, **variables: str) -> Process:
    with Path("log.txt").open("wb") as log:
        return start_process(["program", *arguments], {**os.environ, **variables}, log)


def said() -> dict[str, Any]:
    wait_for(lambda: "{" in Path("log.txt").read_text() and "}\n" in Path("log.txt").read_text(), every_seconds=0.01)
    return json.loads(next(line for line in Path("log.txt").read_text().splitlines() if line.startswith("{")))


def servers() -> list[forked_process.ForkServer]:
    return list(filter(None, start._SERVERS._servers.values()))


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(("argument", "status"), [("0", 0), ("75", 75), ("2", 2), ("raise", 1), ("fault", -11)])
def test_a_forked_run_ends_and_logs_as_one_that_is_started_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, argument: str, status: int
) -> None:
    seen = {}
    for switch in ("1", "0"):
        monkeypatch.setenv("VELOCITUNE_PRELOAD", switch)
        process = begin(argument, VARIABLE="of this run")
        assert isinstance(process, ForkedProcess) is (switch == "1")
        assert (process.wait(60), process.poll()) == (status, status)
        own = said()
        assert own.pop("pid") == process.pid
        assert (own.pop("early")[0] == process.pid) is (switch == "0")
        first, _, *last = Path("log.txt").read_text().splitlines()
        seen[switch] = own, first, last[-2:]  # between them, a traceback names the preloaded process's file too
    assert seen["1"] == seen["0"]
    assert seen["1"][0]["ours"] == [] and seen["1"][1] == "imported"


def test_runs_share_a_process_and_take_code_and_folder_as_they_are_at_their_start(folder: Path) -> None:
    assert begin("0").wait(60) == 0
    first_said = said()
    Path("program.py").write_text(PROGRAM.replace("sys.argv[1:]", "'edited'"))
    Path("elsewhere").mkdir()
    Path("program.py").rename("elsewhere/program.py")
    os.chdir("elsewhere")
    assert begin("0").wait(60) == 0
    second_said = said()
    assert second_said["argv"] == "edited" and second_said["folder"] == str(folder / "elsewhere")
    assert second_said["early"] == first_said["early"] and len(servers()) == 1


def test_a_variable_that_libraries_have_read_needs_another_process(folder: Path) -> None:
    values = []
    for variables in ({"OMP_NUM_THREADS": "3"}, {"CUDA_VISIBLE_DEVICES": "7", "OMP_NUM_THREADS": "3"}, {}):
        assert begin("0", **variables).wait(60) == 0
        values.append(said()["early"][1])
    assert values == ["3", "3", os.environ["OMP_NUM_THREADS"]]
    assert len(servers()) == 2


def test_signals_reach_the_run_alone_and_none_that_stops_it_the_preloaded_process(folder: Path) -> None:
    process = begin("wait")
    assert said()["blocked"] == [] and process.poll() is None
    (server,) = servers()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C and a closed terminal signal all processes
        os.kill(server.pid, number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    process.kill()  # does nothing to one that has ended
    other = begin("wait")
    other.kill()
    assert other.wait(60) == -signal.SIGKILL and server.is_running()


def test_ps_shows_the_command_of_a_run(folder: Path) -> None:
    process = begin("wait", "x" * 300)
    said()
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert command == [os.fsencode(sys.executable), b"-m", b"program", b"wait", b"x" * 300]
    process.kill()
    process.wait(60)


def test_runs_outlive_the_kill_of_the_process_they_were_forked_from(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = begin("wait")
    said()
    (server,) = servers()
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: not server.is_running(), every_seconds=0.01)
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == UNKNOWN_STATUS and "exit status is lost" in caplog.text
    again = begin("0")
    assert isinstance(again, ForkedProcess) and again.wait(60) == 0
    assert [each.pid for each in servers()] != [server.pid]


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        ("raise ImportError('no such library')", "no such library"),
        ("import time; time.sleep(60)", "not loaded after"),
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "1 threads"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed"),
    ],
    ids=["broken", "stuck", "threads", "killed"],
)
def test_libraries_that_cannot_be_preloaded_leave_runs_that_import_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, library: str, reason: str
) -> None:
    (folder / "libraries/unfit.py").write_text(library)
    monkeypatch.setattr(forked_process, "LIBRARIES", ("unfit",))
    monkeypatch.setattr(forked_process, "SECONDS_TO_PRELOAD", 2.0 if reason == "not loaded after" else 60.0)
    for _ in range(2):
        process = begin("0")
        assert isinstance(process, subprocess.Popen) and process.wait(60) == 0
    assert reason in caplog.text and len(caplog.records) == 1


def test_a_preloaded_process_that_is_stopped_costs_a_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert begin("0").wait(60) == 0
    (server,) = servers()
    monkeypatch.setattr(forked_process, "SECONDS_TO_FORK", 0.5)
    os.kill(server.pid, signal.SIGSTOP)
    process = begin("0")
    assert isinstance(process, ForkedProcess) and process.wait(60) == 0 and not server.is_running()


def test_runs_of_a_process_that_is_stopped_report_how_they_end_once_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = begin("wait")
    said()
    (server,) = servers()
    monkeypatch.setattr(forked_process, "SECONDS_TO_FORK", 0.3)
    os.kill(server.pid, signal.SIGSTOP)
    assert begin("0").wait(60) == 0
    os.kill(server.pid, signal.SIGCONT)
    running.terminate()
    assert running.wait(60) == -signal.SIGTERM
    assert begin("0").wait(60) == 0 and not server.is_running()


def test_threads_may_ask_at_once_and_a_time_that_is_over_is_no_wait(folder: Path) -> None:
    process = begin("wait")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(-1)
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(process.wait, seconds) for seconds in (30, 30, None)]
        assert [process.poll() for _ in range(3)] == [None] * 3
        process.kill()
        assert [end.result() for end in ends] == [-signal.SIGKILL] * 3


def test_a_run_inherits_from_the_launcher_as_it_is_now(folder: Path) -> None:
    show = "import os, resource, sys; sys.stdout.write(repr([os.umask(0), os.sched_getaffinity(0), os.nice(0), "
    Path("program.py").write_text(f"{show}resource.getrlimit(resource.RLIMIT_NOFILE)]))")
    begin("0").wait(60)
    if (copy := os.fork()) == 0:  # this process keeps its own
        os.umask(0o27)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
        expected = repr([0o27, os.sched_getaffinity(0), os.nice(0), (300, 400)])
        (server,) = servers()
        with Path("log.txt").open("wb") as log:
            forked = server.fork(["program"], os.environ, log)
        assert forked is not None
        forked.wait(60)
        os._exit(Path("log.txt").read_text() != "imported\n" + expected)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0


def test_libraries_named_relative_to_the_folder_are_those_of_the_run(folder: Path) -> None:
    for name in ("one", "other"):
        Path(name).mkdir()
        Path(name, "early.py").write_text(f"print('{name}', flush=True)")
        Path(name, "program.py").write_text("import early")
    for name in ("one", "other"):
        os.chdir(folder / name)
        assert begin("0", PYTHONPATH=".").wait(60) == 0
        assert Path("log.txt").read_text().startswith(name)


def test_runs_draw_numbers_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_process, "LIBRARIES", ("numpy.random",))
    Path("program.py").write_text("import numpy; print(numpy.random.rand())")
    drawn = []
    for _ in range(2):
        assert begin().wait(60) == 0
        drawn.append(Path("log.txt").read_text())
    assert len(servers()) == 1 and drawn[0] != drawn[1]


@pytest.mark.parametrize("where", ["launcher", "server"])
def test_where_no_more_files_may_be_open_a_run_is_started_by_itself_or_not_at_all(folder: Path, where: str) -> None:
    """And never twice: every run that is started is known."""
    Path("driver.py").write_text(CROWDED)
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "driver.py", where]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    kinds, all_known, ends = done.stdout.splitlines()
    assert kinds.startswith("ForkedProcess") and (where == "launcher" or "Popen" in kinds)
    assert (all_known, ends) == ("True", "{None}")


CROWDED = """
import os, psutil, resource, socket, sys, time
from pathlib import Path
from velocitune_core.preload import fork_server, forked_process, start
forked_process.LIBRARIES = ("early",)
Path("program.py").write_text("import signal; print('runs', flush=True); signal.pause()")
runs, logs = [], []
def begin(number):
    logs.append(Path(f"log{number}.txt"))
    with logs[-1].open("wb") as log:
        runs.append(start.start_process(["program"], os.environ, log))
begin(0)
(server,) = start._SERVERS._servers.values()
if sys.argv[1] == "server":
    free = len(os.listdir(f"/proc/{server.pid}/fd"))
    for number in range(1, 5):
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free + number, 4096))
        begin(number)
else:
    send = socket.send_fds
    def send_and_crowd(channel, message, files):  # as another thread, which opens files meanwhile
        send(channel, message, files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files), 4096))
    socket.send_fds = send_and_crowd
    try:
        begin(1)
    except OSError as error:
        assert error.errno == 24, error
        logs.pop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
print(*[type(run).__name__ for run in runs])
deadline = time.monotonic() + 20
def known():
    return {each.pid for each in psutil.Process().children(recursive=True)} - {server.pid} == {run.pid for run in runs}
while not (known() and all("runs" in log.read_text() for log in logs)) and time.monotonic() < deadline:
    time.sleep(0.01)
print(known())
print({run.poll() for run in runs})
for run in runs:
    run.kill()
"""


DRIVER = """
import os, sys, time
from velocitune_core.preload import fork_server, forked_process, start
forked_process.LIBRARIES = tuple(sys.argv[1].split(","))
with open("log.txt", "wb") as log:
    run = start.start_process(["program", "wait"], os.environ, log)
(server,) = start._SERVERS._servers.values()
print(server.pid, run.pid, flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


def drive(libraries: str, after: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "-c", DRIVER, libraries, after]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", ["wait", "return"])
def test_the_preloaded_process_ends_with_its_driver(folder: Path, after: str) -> None:
    with drive("early", after) as driver:
        assert driver.stdout is not None
        server, run = map(int, driver.stdout.readline().split())
        if after == "wait":
            driver.kill()
        driver.wait(60)
    wait_for(lambda: has_ended(server), 20, every_seconds=0.01)
    os.kill(run, signal.SIGKILL)  # it is no training, which would see that its launcher has ended


def test_it_ends_between_two_imports_if_its_driver_is_killed(folder: Path) -> None:
    slow = "import os, pathlib, time; pathlib.Path('{0}').write_text(str(os.getpid())); time.sleep(0.5)"
    for name in ("first", "second"):
        (folder / f"libraries/{name}.py").write_text(slow.format(name))
    with drive("first,second", "wait") as driver:
        wait_for(lambda: Path("first").exists() and Path("first").read_text(), every_seconds=0.01)
        driver.kill()
    wait_for(lambda: has_ended(int(Path("first").read_text())), 20, every_seconds=0.01)
    assert not Path("second").exists()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_copy_of_the_driver_keeps_no_preloaded_process_and_has_its_own(folder: Path) -> None:
    assert begin("0").wait(60) == 0
    (server,) = servers()
    os.register_at_fork(after_in_child=start._SERVERS.leave)  # as is done for the one that the fixture replaced
    if (copy := os.fork()) == 0:
        kept = server._channel.fileno() != -1  # it would outlive the driver for as long as the copy lives
        with Path("log.txt").open("wb") as log:
            status = start_process(["program", "0"], os.environ, log).wait(60)
        os._exit(status or kept or servers()[0].pid == server.pid)
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
    assert server.is_running() and begin("0").wait(60) == 0


def test_the_server_holds_back_the_signals_that_stop_a_run() -> None:
    assert set(STOP_SIGNALS) == fork_server.STOP_SIGNALS  # which imports no module of the project
