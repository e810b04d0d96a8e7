"""Packing against `datasets.map`, and its memory by size of the corpus: `python benchmarks/packing.py`.

Both take the same jsonl file, tokenizer and sequence length and end with fixed-length rows on disk; `datasets` maps
over as many processes as there are cores, in batches, once to tokenise and once to group. Only ours removes duplicates,
holds documents out and can be resumed. Needs a folder with the embedded documents and one with a tokenizer, as
`make demo` leaves them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

LENGTH = 256
TOKENS_WANTED = "PACKING_TOKENS"  # variable: of the one text file
SECONDS_BETWEEN_LOOKS = 0.05


def write_corpus(documents: Path, path: Path, megabytes: float) -> None:
    """Real documents over and over, each made distinct by a numbered first line."""
    texts = [json.loads(line)["text"] for file in sorted(documents.glob("*.jsonl")) for line in file.open()]
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(cycle(texts[::7] + texts[3::7])):  # of all domains
            numbered = f"document {number}\n{text}"
            file.write(json.dumps({"text": numbered}) + "\n")
            size += len(numbered.encode())
            if size >= megabytes * 1e6:
                return


def write_one_file(documents: Path, folder: Path, megabytes: float) -> None:
    """One text file of real documents, to train on, and a few short ones, to hold out."""
    folder.mkdir()
    texts = [json.loads(line)["text"] for file in sorted(documents.glob("*.jsonl")) for line in file.open()]
    size = 0
    with (folder / "long.txt").open("w", encoding="utf-8") as file:
        for text in cycle(texts):
            size += len(text.encode())
            if size > megabytes * 1e6:
                break
            file.write(f"{text}\n")
    for number in range(200):
        (folder / f"{number}.txt").write_text(f"{number} " + "one short text to measure on " * 200)


def pack_long(corpus: Path, tokenizer: Path, folder: Path) -> int:
    """Returns the tokens packed of a folder of text files, all of which are read, whatever is wanted of them."""
    from transformers import AutoTokenizer

    from velocitune_core.config import Data, Domain, Source
    from velocitune_core.data.packing.domain import pack_source

    wanted = int(os.environ[TOKENS_WANTED]) if TOKENS_WANTED in os.environ else None
    domain = Domain(source=Source(type="text", path=corpus.name), max_tokens=wanted)
    data = Data(path=str(corpus.parent), sequence_length=LENGTH, held_out_fraction=0.05)
    fast = AutoTokenizer.from_pretrained(tokenizer)
    packed, _ = pack_source("code", domain, fast, data, folder / "code", lambda progress: None)
    return packed.train.tokens


def pack_ours(corpus: Path, tokenizer: Path, folder: Path) -> int:
    """Returns the tokens packed."""
    from transformers import AutoTokenizer

    from velocitune_core.config import Data, Domain, Source
    from velocitune_core.data.packing.domain import pack_source

    domain = Domain(source=Source(type="jsonl", path=corpus.name))
    data = Data(path=str(corpus.parent), sequence_length=LENGTH, held_out_fraction=0.001)
    fast = AutoTokenizer.from_pretrained(tokenizer)
    packed, _ = pack_source("code", domain, fast, data, folder / "code", lambda progress: None)
    return packed.train.tokens


def pack_datasets(corpus: Path, tokenizer: Path, folder: Path) -> int:
    """The usual recipe: tokenise, then concatenate and cut the documents of each batch."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    fast = AutoTokenizer.from_pretrained(tokenizer)
    end = fast.eos_token_id

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = fast(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return {"input_ids": [[*each, end] for each in ids]}

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = [token for ids in batch["input_ids"] for token in ids]
        return {"input_ids": [joined[at : at + LENGTH] for at in range(0, len(joined) - LENGTH + 1, LENGTH)]}

    cores = os.cpu_count()
    cache = str(folder / "cache")
    rows = datasets.load_dataset("json", data_files=str(corpus), split="train", cache_dir=cache)
    rows = rows.map(tokenise, batched=True, num_proc=cores, remove_columns="text")
    rows = rows.map(group, batched=True, num_proc=cores)
    rows.save_to_disk(str(folder / "rows"))
    return len(rows) * LENGTH


PACKERS = {"velocitune": pack_ours, "datasets.map": pack_datasets}
ONE_FILE = "velocitune, one text file"


class Run(NamedTuple):
    """One packing, imports left out; memory and CPU time are those of all its processes."""

    seconds: float
    cpu_seconds: float
    tokens: int
    peak_megabytes: float


def measured(packer: str, corpus: Path, tokenizer: Path) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", packer, str(corpus), str(tokenizer), folder]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": folder}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        peak = [0.0]
        watcher = threading.Thread(target=watch_memory, args=(process, peak))
        watcher.start()
        said = process.communicate()[0]
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{packer} ended with status {process.returncode}")
    seconds, cpu_seconds, tokens = said.splitlines()[-1].split()
    return Run(float(seconds), float(cpu_seconds), int(tokens), peak[0])


def watch_memory(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Largest sum of proportional set sizes over the process tree, in MB; pages that processes share count once."""
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for each in [tree, *tree.children(recursive=True)]:
                total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        peak[0] = max(peak[0], total / 1e6)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def child(packer: str, corpus: str, tokenizer: str, folder: str) -> None:
    import datasets  # noqa: F401 - imports are not what is measured
    import transformers  # noqa: F401

    import velocitune_core.data.packing.domain  # noqa: F401

    start, cpu_start = time.perf_counter(), cpu_seconds()
    tokens = {**PACKERS, ONE_FILE: pack_long}[packer](Path(corpus), Path(tokenizer), Path(folder))
    print(time.perf_counter() - start, cpu_seconds() - cpu_start, tokens)


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, default=Path("data/embedded"), help="folder of .jsonl files")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/base"))
    parser.add_argument("--megabytes", type=float, nargs="*", default=[20.0, 80.0])
    parser.add_argument("--one-file", type=float, nargs="*", default=[], help="sizes of a text file, in megabytes")
    parser.add_argument("--one-file-tokens", type=int, help="tokenise no more of it (default: all)")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--packers", nargs="+", choices=PACKERS, default=list(PACKERS))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    if arguments.one_file_tokens is not None:
        os.environ[TOKENS_WANTED] = str(arguments.one_file_tokens)
    table = Table("packed by", "text, MB", "seconds, each", "MB/s", "tokens/s", "CPU s/MB", "peak memory, MB")
    with tempfile.TemporaryDirectory() as folder:
        for megabytes in arguments.megabytes:
            corpus = Path(folder) / f"{megabytes:g}.jsonl"
            write_corpus(arguments.documents, corpus, megabytes)
            runs: dict[str, list[Run]] = {packer: [] for packer in arguments.packers}
            for _ in range(arguments.repetitions):
                for packer, found in runs.items():  # side by side: what else the machine does meets both
                    found.append(measured(packer, corpus, arguments.tokenizer))
            for packer, found in runs.items():
                seconds = statistics.median(run.seconds for run in found)
                speed = f"{megabytes / seconds:.2f}", f"{found[0].tokens / seconds:,.0f}"
                cpu = statistics.median(run.cpu_seconds for run in found) / megabytes
                peak = statistics.median(run.peak_megabytes for run in found)
                each = ", ".join(f"{run.seconds:.1f}" for run in found)
                table.add_row(packer, f"{megabytes:g}", each, *speed, f"{cpu:.2f}", f"{peak:,.0f}")
        for megabytes in arguments.one_file:
            corpus = Path(folder) / f"one-{megabytes:g}"
            write_one_file(arguments.documents, corpus, megabytes)
            run = measured(ONE_FILE, corpus, arguments.tokenizer)
            speed = f"{megabytes / run.seconds:.2f}", f"{run.tokens / run.seconds:,.0f}"
            cpu, peak = f"{run.cpu_seconds / megabytes:.2f}", f"{run.peak_megabytes:,.0f}"
            table.add_row(ONE_FILE, f"{megabytes:g}", f"{run.seconds:.1f}", *speed, cpu, peak)
    Console().print(table)


if __name__ == "__main__":
    main()
