"""Use of the machine while a run trains, by MLflow's own monitors, read without a thread of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

SECONDS_BETWEEN = 10.0  # as MLflow has it


class SystemMetrics:
    """Use of CPUs, memory and GPUs of the machine that watches a run, every ten seconds."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = []
        self._next = 0.0

    def due(self) -> list[tuple[str, float]]:
        """Return the metrics by MLflow's names; nothing if the last ones are not ten seconds old."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + SECONDS_BETWEEN
        self._monitors = self._monitors or _monitors()
        found = []
        for monitor in self._monitors:
            monitor.collect_metrics()
            found += [(f"system/{name}", float(value)) for name, value in (monitor.aggregate_metrics() or {}).items()]
            monitor.clear_metrics()
        return found


def _monitors() -> list[BaseMetricsMonitor]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    try:
        return [CPUMonitor(), GPUMonitor()]
    except Exception:  # MLflow says which of several it is: no NVIDIA GPU, or no library for them
        return [CPUMonitor()]
