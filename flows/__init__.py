"""Order: which task runs when."""

import tasks as _tasks  # noqa: F401 - turns telemetry off before Prefect is first imported
