"""What lies in `runs/`, and what of it could go: `python -m flows.clean`. Deletes only with `--delete`.

Runs of the present settings stay, finished or not, and so does all that they may take something from. Runs that were
started over and finished runs of other settings go, with `--unfinished` the unfinished ones of other settings, too.
"""

from tasks.cleanup.command import main

if __name__ == "__main__":
    main()
