"""Every row of every source, read before any work: what cannot be read, of all sources, is one message.

`.velocitune/read-sources.json` keeps which sources were read in which state, so that each is read once, whichever stage
comes first and however often a run is started again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.workspace import paths
from tasks.workspace.said_once import warn_once
from velocitune_core.config import Params
from velocitune_core.data.sources import MalformedRows, SourceError, is_on_hub, read_documents, source_files
from velocitune_core.files import write_text
from velocitune_core.style.text import counted


class ReadSource(BaseModel):
    """What reading a source to its end has found."""

    name: str  # of the domain
    state: str  # digest of the source's settings, and of its files' paths, sizes and times
    malformed: int = 0
    malformed_shown: list[str] = []
    problem: str | None = None


_RECORD = TypeAdapter(list[ReadSource])


def unread_sources(params: Params) -> list[str]:
    """Return the domains whose sources have changed since they were read and found good, or were never read.

    Warns of malformed rows in the others. A data set on the hub is left to the packing, which reads no more of it than
    it needs.
    """
    unread, found = [], {each.name: each for each in _recorded()}
    for name in params.domains:
        read = found.get(name)
        if read is not None and read.state == _state(name, params) and read.malformed <= params.data.max_malformed_rows:
            warn_of_malformed(name, read.malformed, read.malformed_shown)
        elif not is_on_hub(params.domains[name].source, Path(params.data.path)):
            unread.append(name)
    return unread


def read_source(name: str, params: Params) -> ReadSource:
    """Read a whole source without using its text; malformed rows up to the limit are warned of."""
    read, malformed = ReadSource(name=name, state=_state(name, params)), MalformedRows(params.data.max_malformed_rows)
    documents = read_documents(params.domains[name].source, Path(params.data.path), malformed)
    try:
        if not sum(1 for _ in documents):
            read.problem = "its source has no documents"
    except SourceError as error:
        read.problem = str(error)
    else:
        warn_of_malformed(name, malformed.count, malformed.shown)
    read.malformed, read.malformed_shown = malformed.count, malformed.shown
    return read


def refuse_unreadable(sources: Sequence[ReadSource]) -> None:
    """Record which sources are good. Raises SourceError with the problems of all others."""
    read = {each.name: each for each in [*_recorded(), *sources]}
    good = [each for each in read.values() if each.problem is None]
    write_text(paths.READ_SOURCES, _RECORD.dump_json(good, exclude={"__all__": {"problem"}}).decode())
    if bad := [each for each in sources if each.problem is not None]:
        raise SourceError("\n".join(f"domain {each.name!r}:{_indented(each.problem)}" for each in bad))


def warn_of_malformed(name: str, count: int, shown: list[str]) -> None:
    """Warn of rows that were skipped, unless another stage of the command has, which read the same."""
    if count:
        warn_once(f"{name}: skipped {counted(count, 'malformed row')}:\n" + "\n".join(shown))


def _indented(problem: str | None) -> str:
    """Return a problem of several lines below the name of its domain, one of a single line beside it."""
    lines = (problem or "").splitlines()
    return f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)


def _state(name: str, params: Params) -> str:
    source, root = params.domains[name].source, Path(params.data.path)
    content = [str(root), source.model_dump(mode="json"), source_files(source, root)]
    return sha256(json.dumps(content).encode()).hexdigest()


def _recorded() -> list[ReadSource]:
    try:
        return _RECORD.validate_json(paths.READ_SOURCES.read_bytes())
    except (OSError, ValidationError):
        return []
