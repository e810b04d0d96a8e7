"""Steps that touch the outside: files, processes, DVC, MLflow and Prefect."""

import logging
import os

# Prefect looks at this when it is imported, so it cannot wait for a function call.
os.environ.setdefault("DO_NOT_TRACK", "1")

# prefect.toml has Prefect show what the tasks log, but leaves the level to them.
logging.getLogger(__name__).setLevel(logging.INFO)
