"""The order of the tasks, a file per flow."""

import tasks as _tasks  # noqa: F401 - turns telemetry off, which must precede the import of Prefect
