"""Credentials in addresses, left out of what is shown: reports, views, logs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# user@ or user:password@, also of a password that was not encoded; host:port/path@version has no user
_NAME, _PASSWORD = r"(?<=://)[^/:@\s\"'<>]*", r":(?!\d+(?:/|$))[^\s\"'<>]*"
_USER = re.compile(f"{_NAME}(?:{_PASSWORD})?@")
_USER_AND_PASSWORD = re.compile(f"{_NAME}{_PASSWORD}@")
_WORDS = "token|key|secret|password|passwd|pwd|signature|sig|credential"
_SECRET = re.compile(rf"([?&;][\w.-]*(?:{_WORDS})[\w.-]*=)[^&;\s#\"']+", re.IGNORECASE)
_ALL_OF_USER = re.compile(r"(?<=://).*@", re.DOTALL)  # of one word of a command line, in which a password ends at the @
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


def without_user(address: str) -> str:
    """Return an address without user and password, so that a browser opens it, and with secret query fields hidden."""
    return without_credentials(_USER.sub("", address))


def has_password(value: Any) -> bool:
    """Return whether an address in a text, or in a tree, has a password or a secret query field."""
    return bool(_USER_AND_PASSWORD.search(str(value)) or _SECRET.search(str(value)))


def shown_command(words: Iterable[str]) -> str:
    """Return a command line as it may be shown and kept: without the credentials of addresses in its words."""
    return " ".join(without_credentials(_ALL_OF_USER.sub(f"{_HIDDEN}@", word)) for word in words)
