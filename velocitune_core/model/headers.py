"""What the headers of a model folder's files say of its weights; needs neither torch, transformers nor safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from velocitune_core.files import unique_keys

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # what transformers reads, in this order
PLAIN_DTYPES = ("F64", "F32", "F16", "BF16")  # of weights that can be trained; others are quantised
_LFS = b"version https://git-lfs"
_NEVER_READ = (".bin", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".gguf", ".pt", ".pth", ".tflite")
_POINTER_BYTES = 1024  # a pointer is never larger
_LARGEST_HEADER = 100_000_000  # of safetensors' own reader
# Buffers that earlier versions of transformers stored, and that every model now makes itself.
_MADE_ANEW = re.compile(r"(^|\.)((self_)?(attn|attention)\.(bias|masked_bias|causal_mask)|inv_freq|\w+_ids)$")
_SHARD = re.compile(r".+-\d+-of-\d+\.safetensors$")
_COMPARED = 1 << 24  # bytes of a tensor at a time
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, as its header describes it."""

    name: str
    file: Path
    dtype: str  # by safetensors' names
    shape: tuple[int, ...]
    start: int  # byte in the file
    stop: int  # byte after its last


@dataclass
class Stored:
    """The tensors that transformers would read from a folder, and why some cannot be read, a line each."""

    tensors: list[StoredTensor] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def stored_weights(path: str) -> Stored:
    """Read the headers of the files that transformers takes the weights of a folder from.

    Problems have file, value and fix: a shard that is missing or cut off, shards without an index, an adapter in place
    of a model, a header that is none, tensors of the index that no file has, or that several have and that differ.
    """
    folder, found = Path(path), Stored()
    names, indexed = _weight_files(folder, found.problems)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        found.problems.append(
            f"model.path: {path} lacks {shown(missing)} of its {INDEX}; download what is missing, or save the model "
            "again with save_pretrained"
        )
    for name in names:
        if name not in missing:
            try:
                found.tensors += _read_header(folder / name)
            except (OSError, ValueError) as error:
                found.problems.append(
                    f"model.path: {folder / name}: {error}; download it again, or save the model again with "
                    "save_pretrained"
                )
    found.tensors, twice = _without_copies(found.tensors)
    found.problems += _duplicates(path, twice)
    if not found.problems:
        found.problems += _disagreements(path, indexed, found.tensors)
    return found


def lfs_pointers(path: str) -> list[str]:
    """Return the names of files of a folder that are git-LFS pointers in place of the files themselves.

    Weights in another format, which many folders of the hub have beside these, are never read.
    """
    pointers = []
    for file in sorted(each for each in Path(path).iterdir() if not each.name.endswith(_NEVER_READ)):
        try:
            if file.stat().st_size <= _POINTER_BYTES and file.is_file() and file.read_bytes().startswith(_LFS):
                pointers.append(file.name)
        except OSError:
            continue
    return pointers


def links_to_nothing(path: str) -> list[str]:
    """Return a problem of the links in a folder whose target is missing, as a line; empty if there is none.

    A cache of the hub is a folder of links: copied without the files that they lead to, it has names alone. What git
    keeps in a clone is no part of the model: DVC leaves it out below the working directory, and fails on it elsewhere.
    """
    links = (each for each in Path(path).rglob("*") if each.is_symlink() and not each.exists())
    left_out = ".git" if Path(path).resolve().is_relative_to(Path.cwd()) else None
    gone = sorted(each for each in links if left_out not in each.relative_to(path).parts)
    if not gone:
        return []
    names = [f"{each.relative_to(path)} → {each.readlink()}" for each in gone]
    return [
        f"model.path: {path}: links to nothing: {shown(names)}; download the model again, or copy its folder with the "
        "files that the links lead to (cp -rL)"
    ]


def shown(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    listed = ", ".join(names[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"


def is_made_anew(name: str) -> bool:
    """Return whether a stored tensor is a mask, or numbers of positions, that no model takes from its file."""
    return _MADE_ANEW.search(name) is not None


def _weight_files(folder: Path, problems: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the files that hold the weights, and of an index the file of each tensor."""
    if (folder / SINGLE).is_file():
        return [SINGLE], {}
    if (folder / INDEX).is_file():
        try:
            indexed: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = sorted(set(indexed.values()))
            if not files or not all(isinstance(name, str) and Path(name).name == name for name in files):
                raise ValueError("its weight_map names no files of the folder")
            return files, indexed
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(
                f"model.path: {folder / INDEX} is not an index ({type(error).__name__}: {error}); download it again"
            )
            return [], {}
    present = sorted(file.name for file in folder.glob("*.safetensors"))
    if "adapter_model.safetensors" in present or (folder / "adapter_config.json").is_file():
        problems.append(
            f"model.path: {folder} holds an adapter, not a model; merge it into its base model (merge_and_unload of "
            "peft) and save that with save_pretrained"
        )
    elif any(_SHARD.match(name) for name in present):
        problems.append(
            f"model.path: {folder} has {len(present)} shards ({shown(present)}) and no {INDEX} that says which tensor "
            "is where; download it, too"
        )
    elif present:
        problems.append(f"model.path: {folder} has no {SINGLE}, only {shown(present)}; rename the file if it is that")
    else:
        problems.append(f"model.path: {folder} has no .safetensors weights; save the model again with save_pretrained")
    return [], {}


def _read_header(file: Path) -> Iterator[StoredTensor]:
    """Yield the tensors of a safetensors file. Raises ValueError for one that is none, or is cut off."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 0 < length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"no safetensors file, or cut off ({size:,} bytes)")
        try:
            entries = json.loads(stream.read(length), object_pairs_hook=unique_keys)
            entries.pop("__metadata__", None)
            tensors = [
                StoredTensor(name, file, each["dtype"], tuple(each["shape"]), *_range(each, 8 + length))
                for name, each in entries.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("its header is not one of safetensors") from None
    end = max((each.stop for each in tensors), default=8 + length)
    if end != size:
        raise ValueError(f"cut off: its header describes {end:,} bytes, and it has {size:,}")
    yield from tensors


def _range(entry: dict[str, Any], begin: int) -> tuple[int, int]:
    start, stop = entry["data_offsets"]
    if not 0 <= start <= stop:
        raise ValueError("a tensor ends before it begins")
    return begin + start, begin + stop


def _without_copies(tensors: list[StoredTensor]) -> tuple[list[StoredTensor], dict[str, list[str]]]:
    """Return each tensor once, and the files of those that several hold with different numbers."""
    first: dict[str, StoredTensor] = {}
    differ: dict[str, list[str]] = {}
    for each in tensors:
        kept = first.setdefault(each.name, each)
        if kept is not each and not _is_copy(kept, each):
            differ.setdefault(each.name, [kept.file.name]).append(each.file.name)
    return list(first.values()), differ


def _is_copy(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two tensors have the same dtype, shape and bytes."""
    size = one.stop - one.start
    if (one.dtype, one.shape, size) != (other.dtype, other.shape, other.stop - other.start):
        return False
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.start)
        right.seek(other.start)
        parts = (min(_COMPARED, size - done) for done in range(0, size, _COMPARED))
        return all(left.read(part) == right.read(part) for part in parts)


def _duplicates(path: str, twice: dict[str, list[str]]) -> list[str]:
    """Return a problem of tensors that differ between files: which one a model gets depends on the order of loading."""
    if not twice:
        return []
    first = next(iter(twice))
    return [
        f"model.path: {path} has {len(twice)} tensors in several files ({shown(sorted(twice))}; {first} in "
        f"{' and '.join(twice[first])}) that differ, and only one of each would be loaded; keep the shards of one "
        "version, or save the model again with save_pretrained"
    ]


def _disagreements(path: str, indexed: dict[str, str], tensors: list[StoredTensor]) -> list[str]:
    present = {each.name for each in tensors}
    if absent := sorted(name for name in set(indexed) - present if not is_made_anew(name)):
        return [
            f"model.path: {path}/{INDEX} lists {len(absent)} tensors that its shards do not have: {shown(absent)}; "
            "download shards and index of one version"
        ]
    return []


def quantised_problems(path: str, tensors: list[StoredTensor]) -> list[str]:
    """Return why matrices that are stored in a dtype of quantised weights cannot be trained, as one line."""
    odd = [each for each in tensors if each.dtype not in PLAIN_DTYPES and len(each.shape) > 1 and _is_weight(each)]
    if not odd:
        return []
    dtypes = ", ".join(sorted({each.dtype for each in odd}))
    return [
        f"model.path: {path} stores {len(odd)} matrices as {dtypes} ({shown([each.name for each in odd])}), and "
        "quantised weights cannot be trained; give the folder of the model that was quantised"
    ]


def _is_weight(tensor: StoredTensor) -> bool:
    """Return whether a tensor is part of a weight: masks and position ids are whole numbers in models of full size."""
    return tensor.dtype.startswith("F") or not (tensor.dtype == "BOOL" or is_made_anew(tensor.name))
