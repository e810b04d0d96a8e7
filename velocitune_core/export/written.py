"""Write an export and what each domain then gets beside it; replace nothing but an earlier export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from velocitune_core.export.destination import Exported
from velocitune_core.export.mixture import ExportError, Mixture
from velocitune_core.export.realised import as_json
from velocitune_core.files import file_sha256, obstacle_to_file, write_text

BESIDE = "-realised.json"  # added to the name of the file, without its suffix
RECORD = "velocitune export"  # in the file beside: the name given last, and the SHA-256 of all files written beside it


def write_files(
    mixture: Mixture, found: Exported, out: Path, *, inputs: Iterable[Path] = (), force: bool = False
) -> list[Path]:
    """Write an export, and what it gives each domain beside it; return the paths.

    Args:
        inputs: files that are never replaced.
        force: replace any other file, not only those that earlier exports beside the same file left unchanged.

    A link is followed, and not replaced.

    Raises ExportError, and writes nothing, where a file may not be replaced, or none can be written; OSError.
    """
    if obstacle := obstacle_to_file(out):
        raise ExportError(f"out: {obstacle}")
    if out.is_symlink():  # such as /dev/stdout
        out = out.resolve()
    texts = {out.with_name(f"{out.stem}{added}{out.suffix}"): text for added, text in found.files.items()}
    tree = as_json(mixture, found.block, found.format, found.rows, found.notes)
    digests = {path.name: sha256(text.encode()).hexdigest() for path, text in texts.items()}
    beside = out.with_name(f"{out.stem}{BESIDE}")
    earlier = _earlier(beside)
    tree[RECORD] = {"out": out.name, "sha256": earlier | digests}
    texts[beside] = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    _check(texts, {path.resolve() for path in inputs}, None if force else earlier, beside)
    for path, text in texts.items():
        write_text(path.resolve(), text)
    return list(texts)


def _check(paths: Iterable[Path], inputs: set[Path], earlier: Mapping[str, str] | None, beside: Path) -> None:
    """Raise ExportError with all files that cannot or may not be written.

    Args:
        earlier: the files that may be replaced: SHA-256 by name; "" for that beside. None: any.
    """
    problems = []
    for path in paths:
        if obstacle := obstacle_to_file(path):
            problems.append(f"out: {obstacle}")
        elif path.resolve() in inputs:
            problems.append(f"out: {path} is what the mixture is read from; give another name")
        elif path.exists() and earlier is not None and not _is_unchanged(path, earlier, beside):
            problems.append(
                f"out: {path} is there, and no unchanged file of an earlier export to this name; give another name, or "
                "--force to replace it"
            )
    if problems:
        raise ExportError("\n".join(problems))


def _is_unchanged(path: Path, earlier: Mapping[str, str], beside: Path) -> bool:
    return bool(earlier) if path == beside else earlier.get(path.name) == file_sha256(path)


def _earlier(beside: Path) -> dict[str, str]:
    """Return the files of earlier exports, of any suffix, with their SHA-256; none if there was no export."""
    try:
        tree: Any = json.loads(beside.read_text(encoding="utf-8"))
        return dict(tree[RECORD]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
