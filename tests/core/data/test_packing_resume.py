"""Packing under SIGKILL: it resumes from the last finished shard and writes the files of an uninterrupted run."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import ForkedRun
from test_packing import make_tokenizer
from trainings import wait_for

from velocitune_core.config import Data, Domain, Source
from velocitune_core.contracts import DomainManifest
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.packing.packer import SHARD_TOKENS
from velocitune_core.data.packing.progress import Progress

DOCUMENTS = 3500
SHARD = 15_000  # tokens: about two batches of documents


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and a domain of documents of many lengths."""
    folder = tmp_path_factory.mktemp("raw")
    make_tokenizer(eos_token="<|end|>").save_pretrained(folder / "tokenizer")
    generator = np.random.default_rng(0)
    words = ["loss", "the domain", "weight", "ärger", "of", "x = 1\n"]
    with (folder / "code.jsonl").open("w", encoding="utf-8") as file:
        for number in range(DOCUMENTS):
            text = f"document {number} " + " ".join(generator.choice(words, size=generator.integers(2, 28)))
            file.write(json.dumps({"text": text}) + "\n")
    return folder


class Packing:
    """One domain packed into a folder, in this process or in one of its own that is killed."""

    def __init__(self, raw: Path, folder: Path, **changes: Any) -> None:
        fields = {"sequence_length": 32, "min_characters": 8, "held_out_fraction": 0.2, "held_out_sequences": 40}
        self.data = Data(path=str(raw), **{**fields, **changes})
        self.domain = Domain(source=Source(type="jsonl", path="code.jsonl"))
        self.folder = folder
        self.progress: list[Progress] = []

    def run(self, shard_tokens: int = SHARD) -> DomainManifest:
        tokenizer = make_tokenizer(eos_token="<|end|>")
        self.progress = []
        watch = self.progress.append
        return pack_source("code", self.domain, tokenizer, self.data, self.folder, watch, shard_tokens=shard_tokens)[0]

    def start(self, kill_at: int = 0, kill_in_save: int = 0) -> ForkedRun:
        domain, data = self.domain.model_dump(), self.data.model_dump()
        arguments = json.dumps([domain, data, str(self.folder), SHARD, kill_at, kill_in_save])
        return ForkedRun([arguments], program="packing_program")

    def killed(self, **when: int) -> Progress:
        """Kill a packing, and return its progress at that moment."""
        process = self.start(**when)
        _, said = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, said
        assert not self.folder.exists()
        return Progress(*json.loads(said.splitlines()[-1]))

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Packing:
    """Packed without interruption, as one shard."""
    packing = Packing(raw, tmp_path_factory.mktemp("whole") / "code")
    packing.run(SHARD_TOKENS)
    return packing


@pytest.fixture
def packing(raw: Path, tmp_path: Path) -> Packing:
    return Packing(raw, tmp_path / "code")


@pytest.mark.slow
def test_after_several_kills_the_bytes_are_the_same(packing: Packing, whole: Packing) -> None:
    assert packing.killed(kill_at=2).resumed_at is None  # in the first shard: no state to resume from
    first = packing.killed(kill_at=6)
    assert first.resumed_at is None
    second = packing.killed(kill_in_save=2)  # after the rows of a shard, before the state that counts them
    assert second.resumed_at
    third = packing.killed(kill_at=3)
    assert second.resumed_at < third.resumed_at < third.documents
    manifest = packing.run()
    last = packing.progress[-1]
    assert last.resumed_at and last.resumed_at >= third.resumed_at
    assert last.documents == DOCUMENTS
    assert last.tokenised == DOCUMENTS - last.resumed_at  # none of the finished shards again
    assert packing.files() == whole.files()
    assert (manifest.documents_read, manifest.train.documents + manifest.held_out.documents) == (DOCUMENTS, DOCUMENTS)
    assert sorted(path.name for path in packing.folder.parent.iterdir()) == ["code", "code.json"]


@pytest.mark.slow
def test_a_kill_at_a_random_moment(packing: Packing, whole: Packing) -> None:
    process = packing.start()
    wait_for(lambda: process.log, every_seconds=0.01)
    time.sleep(random.uniform(0.0, 0.4))
    process.kill()
    process.communicate(timeout=60)
    packing.run()
    assert packing.files() == whole.files()


@pytest.fixture(scope="module")
def partial(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a packing has left that was stopped after some shards by an exception, without saving state."""

    class StopHereError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.documents > DOCUMENTS // 2:
            raise StopHereError

    stopped = Packing(raw, tmp_path_factory.mktemp("stopped") / "code")
    tokenizer = make_tokenizer(eos_token="<|end|>")
    with pytest.raises(StopHereError):
        pack_source("code", stopped.domain, tokenizer, stopped.data, stopped.folder, stop, shard_tokens=SHARD)
    assert (stopped.folder.parent / ".code.partial").is_dir()
    return stopped.folder.parent


@pytest.fixture
def interrupted(packing: Packing, partial: Path) -> Packing:
    shutil.copytree(partial, packing.folder.parent, dirs_exist_ok=True)
    return packing


def test_an_interrupted_packing_resumes(interrupted: Packing, whole: Packing) -> None:
    interrupted.run()
    assert interrupted.progress[0].resumed_at
    assert interrupted.files() == whole.files()


def test_other_settings_start_over(interrupted: Packing, raw: Path, tmp_path: Path) -> None:
    other = Packing(raw, interrupted.folder, held_out_fraction=0.3)
    other.run()
    assert (other.progress[0].resumed_at, other.progress[-1].tokenised) == (None, DOCUMENTS)
    apart = Packing(raw, tmp_path / "apart" / "code", held_out_fraction=0.3)
    apart.run()
    assert other.files() == apart.files()


def test_another_source_starts_over(interrupted: Packing, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    lines = (Path(interrupted.data.path) / "code.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "code.jsonl").write_text("".join(lines[1:]), encoding="utf-8")
    changed = Packing(folder, interrupted.folder)
    assert changed.run().documents_read == DOCUMENTS - 1
    assert changed.progress[0].resumed_at is None


def test_a_file_that_is_not_read_packs_nothing_again(tmp_path: Path) -> None:
    packing = Packing(tmp_path / "raw", tmp_path / "code")
    packing.domain = Domain(source=Source(type="jsonl", path="."))
    (tmp_path / "raw").mkdir()
    rows = [json.dumps({"text": f"document {number} of the domain, with words of its own"}) for number in range(60)]
    (tmp_path / "raw/a.jsonl").write_text("\n".join(rows))
    assert packing.run().left_out == 0 and packing.progress
    (tmp_path / "raw/README.md").write_text("what this is")
    again = packing.run()
    assert packing.progress == [] and again.left_out == 1 and "README.md" in again.left_out_shown[0]


def test_all_documents_of_a_measured_set_are_held_out(raw: Path, tmp_path: Path, whole: Packing) -> None:
    packing = Packing(raw, tmp_path / "code", held_out_sequences=10_000)
    packing.domain = packing.domain.model_copy(update={"measure_only": True})
    packed = packing.run()
    assert (packed.train.sequences, packed.train.documents) == (0, 0)
    assert packed.held_out.documents == whole.run().train.documents + whole.run().held_out.documents


def test_another_tokenizer_starts_over(interrupted: Packing) -> None:
    tokenizer = make_tokenizer(eos_token="<|end|>")
    tokenizer.add_tokens(["domain"])
    seen: list[Progress] = []
    pack_source("code", interrupted.domain, tokenizer, interrupted.data, interrupted.folder, seen.append)
    assert seen[0].resumed_at is None


@pytest.mark.parametrize("corrupt", ["state", "rows", "no rows"])
def test_corrupt_state_starts_over(interrupted: Packing, whole: Packing, corrupt: str) -> None:
    partial = interrupted.folder.parent / ".code.partial"
    if corrupt == "state":
        (partial / "state.sqlite").write_bytes(b"no data base" * 999)
    elif corrupt == "rows":
        with (partial / "train.npy").open("r+b") as file:
            file.truncate(1000)
    else:
        (partial / "train.npy").unlink()
    interrupted.run()
    assert interrupted.progress[0].resumed_at is None
    assert interrupted.files() == whole.files()


def test_a_finished_packing_is_reused_until_something_changes(packing: Packing, raw: Path) -> None:
    first = packing.run()
    assert packing.run() == first
    assert packing.progress == []
    changed = Packing(raw, packing.folder, sequence_length=64)
    assert changed.run() != first
    assert changed.progress
