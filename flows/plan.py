"""Estimate the cost of a run before it starts: `python -m flows.plan`. Nothing is run or written.

Tokens, steps, FLOPs, time from a probe of a few seconds on this machine, memory per device, and disk.
"""

from tasks.planning.command import main

if __name__ == "__main__":
    main()
