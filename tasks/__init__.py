"""Steps that touch the outside: files, processes, DVC, MLflow and Prefect."""

import logging
import os

# Prefect looks at these when it is imported, so they cannot wait for a function call.
os.environ.setdefault("DO_NOT_TRACK", "1")
# Its own server for one run takes longer to start than the 20 seconds it allows, where other runs keep the cores busy.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")

# prefect.toml has Prefect show what the tasks log, but leaves the level to them.
logging.getLogger(__name__).setLevel(logging.INFO)
