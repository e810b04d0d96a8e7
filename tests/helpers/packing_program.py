"""Pack a domain, with a line on standard output at every step, and die by SIGKILL at a chosen moment."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from velocitune_core.config import Data, Domain
from velocitune_core.data.packing.domain import pack_source
from velocitune_core.data.packing.progress import Progress
from velocitune_core.data.packing.resume_state import PackingState


class At:
    """Kills this process the n-th time that it is called; 0: never."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def main(
    domain: dict[str, Any], data: dict[str, Any], folder: str, shard_tokens: int, kill_at: int, kill_in_save: int
) -> None:
    """Pack into a folder. A kill in a save comes once the rows are on the disk, and the state that counts them not."""
    watched, saved, save = At(kill_at), At(kill_in_save), PackingState.save

    def watch(progress: Progress) -> None:
        shown = [progress.documents, progress.tokens, progress.resumed_at, progress.tokenised]
        sys.stdout.write(f"{json.dumps(shown)}\n")
        sys.stdout.flush()
        watched()

    def save_or_die(*arguments: Any) -> None:
        saved()
        save(*arguments)

    PackingState.save = save_or_die  # type: ignore[method-assign]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(Path(data["path"]) / "tokenizer"))
    pack_source("code", Domain(**domain), tokenizer, Data(**data), Path(folder), watch, shard_tokens=shard_tokens)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
