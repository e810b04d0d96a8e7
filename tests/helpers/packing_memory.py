"""Pack the text files of a folder, and print by how many MB the memory of this process grew at its peak."""

from __future__ import annotations

import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from velocitune_core.config import Data, Domain, Source
from velocitune_core.data.packing.domain import pack_source

WORDS = [f"word{number}" for number in range(1, 64)]


def main(folder: Path) -> None:
    numbers = {"<|end|>": 0} | {word: number for number, word in enumerate(WORDS, start=1)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<|end|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    data = Data(path=str(folder), sequence_length=64, held_out_fraction=0.3, held_out_sequences=4)
    before = peak()
    domain = Domain(source=Source(type="text", path="texts"))
    packed, _ = pack_source("books", domain, fast, data, folder / "packed/books", lambda progress: None)
    sys.stdout.write(f"{packed.documents_read} documents, {(peak() - before) / 1024:.0f} MB\n")


def peak() -> int:
    """The largest resident size so far in KiB; of a forked process it begins at the size when it was forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
