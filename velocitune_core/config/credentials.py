"""Credentials in addresses, left out of what is shown: reports, views, logs."""

from __future__ import annotations

import re
from typing import Any

# user@ or user:password@, also of a password that was not encoded; host:port/path@version has no user
_USER = re.compile(r"(?<=://)[^/:@\s\"'<>]*(?::(?!\d+(?:/|$))[^\s\"'<>]*)?@")
_WORDS = "token|key|secret|password|passwd|pwd|signature|sig|credential"
_SECRET = re.compile(rf"([?&;][\w.-]*(?:{_WORDS})[\w.-]*=)[^&;\s#\"']+", re.IGNORECASE)
_HIDDEN = "***"


def without_credentials(value: Any) -> Any:
    """Return a text, or a JSON-ready tree, with user, password and secret query fields of every address replaced."""
    if isinstance(value, dict):
        return {key: without_credentials(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_credentials(each) for each in value]
    if not isinstance(value, str):
        return value
    return _SECRET.sub(rf"\1{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", value))
