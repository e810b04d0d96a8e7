"""Tables in Prefect's UI."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

logger = logging.getLogger(__name__)


def publish_table(key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Create a table artifact. If Prefect's server does not take it, log a warning: it is only a view."""
    try:
        create_table_artifact([dict(row) for row in rows], key=key, description=title)
    except Exception as error:
        logger.warning("Prefect did not take the table %s: %s", key, error)
