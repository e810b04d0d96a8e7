"""Program that is a flow, in a process forked from one that has imported torch; its runs are forked from the same.

A flow that is killed is then a process of its own, as its runs are, without the seconds that both take to import.
After `--watched` the launcher is the real one, which follows a run while it goes on and is the parent that it watches.
"""

import runpy
import sys
from multiprocessing import current_process, forkserver

from forked import ForkedProcess, run_forked

if __name__ == "__main__":
    current_process()._config["daemon"] = False  # such a process may start others
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # the one that this comes from

    import tasks.runs.launch
    import tasks.runs.torchrun

    if watched := sys.argv[1] == "--watched":
        tasks.runs.torchrun.start_process = ForkedProcess
    else:
        tasks.runs.launch.run_program = run_forked
    sys.argv = sys.argv[1 + watched :]
    runpy.run_module(sys.argv[0], run_name="__main__")  # runs import the main module again, which stays this one
