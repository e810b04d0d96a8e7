"""Steps that touch the outside: files, processes, DVC, MLflow and Prefect."""

import os

# Prefect looks at this when it is imported, so it cannot wait for a function call.
os.environ.setdefault("DO_NOT_TRACK", "1")
