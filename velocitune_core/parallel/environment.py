"""Environment variables that describe a process group."""

from __future__ import annotations

from collections.abc import Mapping

NAMES = {
    "GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK",
    "RANK", "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "WORLD_SIZE",
}  # fmt: skip


def without_process_group(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without variables of another launcher, such as the shell of a cluster's job.

    A single process that inherited them would wait for ranks that nobody starts.
    """
    return {
        name: value for name, value in environment.items() if name not in NAMES and not name.startswith("TORCHELASTIC_")
    }
