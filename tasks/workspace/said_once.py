"""Warnings that several steps of one command would repeat."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)
_said: set[str] = set()  # in this process


def warn_once(message: str) -> None:
    """Log a warning unless this process has logged the same one before."""
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
