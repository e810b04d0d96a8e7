"""The sources of a workspace, before anything is read: what cannot be read, and what is not read or not watched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tasks.workspace import paths
from tasks.workspace.home import missing_in_copy
from tasks.workspace.made_by_stages import made_by_a_stage
from tasks.workspace.said_once import warn_once
from velocitune_core.config import Params
from velocitune_core.contracts import ContractError, Manifest
from velocitune_core.data.sources import check_source, left_out, unwatched_digest, unwatched_files
from velocitune_core.recipes.embedded import EMBEDDED

_SHOWN = 5


def source_problems(params: Params) -> list[str]:
    """Return the problems of all sources that show without reading rows, and of files that DVC cannot record."""
    root = Path(params.data.path)
    if root == paths.EMBEDDED:  # made by the stage `corpus`
        made = {f"{name}.jsonl" for name in EMBEDDED}
        return [
            f"domains.{name}.source.path: {domain.source.path!r} is not among the embedded {sorted(made)}; "
            "put your own text into data/raw and set data.path to it"
            for name, domain in params.domains.items()
            if domain.source.path not in made
        ]
    if made := made_by_a_stage(root, apart_from=paths.EMBEDDED):
        return [
            f"data.path: {made}, and the pipeline cannot start from what it makes; put the text into another folder, "
            "such as data/raw, and name that"
        ]
    if lost := missing_in_copy(root):
        return [f"data.path: {lost}"]
    problems = []
    for name, domain in params.domains.items():
        place = root / domain.source.path
        if made := made_by_a_stage(place, apart_from=paths.EMBEDDED):
            found = [f"{made}, and the pipeline cannot start from what it makes; copy the text to another folder"]
        elif lost := missing_in_copy(place):
            found = [lost]
        else:
            found = check_source(domain.source, root)
        problems += [f"domains.{name}.source: {problem}" for problem in found]
    return problems + _problems_for_dvc(root)


def warn_of_sources(params: Params) -> None:
    """Log once in this process what the sources hold and is not read, and which of their files DVC does not watch."""
    root = Path(params.data.path)
    if root == paths.EMBEDDED:
        return
    for name, domain in params.domains.items():
        if others := left_out(domain.source, root):
            warn_once(f"domains.{name}: of its source, {_counted(len(others))} not read: {_listed(others, '; ')}")
    if outside := [name for name, domain in params.domains.items() if unwatched_files(domain.source, root)]:
        warn_once(
            f"domains.{_listed(outside)}: files outside data.path, or behind a linked folder in it. DVC does not watch "
            "them: `python -m flows.pipeline` packs them anew when they change, `dvc repro` does not"
        )


def unwatched_files_changed(params: Params) -> bool:
    """Return whether source files that DVC does not watch have changed since they were packed."""
    try:
        manifest = Manifest.read(paths.MANIFEST)
    except ContractError:
        return False  # DVC reports the missing output
    packed = manifest.domains | manifest.measured
    root = Path(params.data.path)
    return any(
        name in packed and packed[name].unwatched_sha256 != unwatched_digest(domain.source, root)
        for name, domain in params.domains.items()
    )


def _problems_for_dvc(root: Path) -> list[str]:
    """Return what makes DVC fail, which records every file below data.path, read or not."""
    gone = sorted(str(path) for path in _files(root) if path.is_symlink() and not path.exists())
    odd = sorted(ascii(str(path)) for path in _files(root) if not _is_utf_8(path.name))
    problems = []
    if gone:
        problems.append(f"data.path: {_listed(gone)}: links to nothing, which DVC cannot record; remove or repair them")
    if odd:
        problems.append(
            f"data.path: {_listed(odd)}: names that are not UTF-8, which DVC cannot record; rename them, or move the "
            "folder out of data.path and link to it"
        )
    return problems


def _files(root: Path) -> Iterator[Path]:
    """Yield what DVC tracks below a folder: it follows no link to a folder."""
    for folder, folders, files in os.walk(root):
        yield from (Path(folder) / name for name in [*folders, *files])


def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _counted(count: int) -> str:
    return "1 file or part is" if count == 1 else f"{count} files or parts are"


def _listed(names: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more
