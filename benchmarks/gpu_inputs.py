"""Models, text and runs of benchmarks/gpu.py, made on the spot: nothing is fetched."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CHECKPOINT_STEPS = 20
DOMAINS, HELD_OUT = 7, 10  # held-out sequences per domain, as in params.yaml
VOCABULARY = 512  # of the checks' synthetic text
SHAPES: dict[str, dict[str, int]] = {
    "miniature": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "check": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "30M": {
        "vocab_size": 16_384,
        "hidden_size": 512,
        "intermediate_size": 1_376,
        "num_hidden_layers": 7,
        "num_attention_heads": 8,
    },
    "135M": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1B": {
        "vocab_size": 128_256,
        "hidden_size": 2_048,
        "intermediate_size": 8_192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}


def write_model(folder: Path, shape: dict[str, int], length: int) -> int:
    """A Llama with random weights and a tokenizer of numbered words; returns its parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {"<|endoftext|>": 0} | {f"w{number}": number for number in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"vocab_size": VOCABULARY, "tie_word_embeddings": True, **shape}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a billion random numbers take a CPU a minute
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=length, **settings))
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def write_domains(folder: Path, length: int, sequences: int, vocabulary: int) -> dict[str, dict[str, str]]:
    """Packed files of `DOMAINS` Markov chains, each with its own transitions, so that there is something to learn."""
    domains = {}
    for number in range(DOMAINS):
        random = np.random.default_rng(number)
        successors = random.integers(vocabulary, size=(vocabulary, 4))
        rows = np.empty((sequences + HELD_OUT, length), dtype=np.uint32)
        rows[:, 0] = random.integers(vocabulary, size=len(rows))
        for position in range(1, length):
            rows[:, position] = successors[rows[:, position - 1], random.integers(4, size=len(rows))]
        files: dict[str, str] = {}
        for name, part in (("train", rows[HELD_OUT:]), ("held_out", rows[:HELD_OUT])):
            path = folder / f"d{number}-{name}.npy"
            np.save(path, part)
            files[name] = str(path)
            files[f"{name}_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        domains[f"d{number}"] = files
    return domains


def write_job(folder: Path, model: Path, domains: dict[str, Any], steps: int, batch: int, **changes: Any) -> Path:
    """A job of the training program under velocitune, evaluated eight times."""
    names = list(domains)
    loss = dict.fromkeys(names, 8.0)
    precision = changes.pop("precision", "float32")
    training = {"batch_sequences": batch, "optimizer": {"learning_rate": 2e-3}, "precision": precision}
    execution = {
        "log_every_steps": 1,
        "checkpoint_every_steps": CHECKPOINT_STEPS,
        "evaluation_micro_batch_sequences": 16,
        "compile": "never",
        **changes,
    }
    job = {
        "name": folder.name,
        "output": str(folder),
        "model": str(model),
        "domains": domains,
        "initial_domain_weights": dict.fromkeys(names, 1 / len(names)),
        "total_steps": steps,
        "training": training,
        "execution": execution,
        "evaluation": {"every_steps": max(1, steps // 8)},
        "strategy": {
            "name": "velocitune",
            "options": {"initial_loss": loss, "target_loss": {name: value / 8 for name, value in loss.items()}},
        },
        "save_model": False,
    }
    folder.mkdir(parents=True)
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def start(job: Path, *, gpu: bool = True) -> subprocess.Popen[bytes]:
    environment = os.environ | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})
    return subprocess.Popen([sys.executable, "-m", "velocitune_core.train", str(job)], env=environment)


def run(job: Path, *, gpu: bool = True) -> Path:
    if start(job, gpu=gpu).wait():
        raise SystemExit(f"{job}: the training failed")
    return job.parent


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines() if (folder / "events.jsonl").exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(folder: Path) -> np.ndarray:
    """Training losses of every step, then held-out losses of every evaluation and domain."""
    trained = {event["step"]: event["loss"] for event in events(folder, "step")}
    held_out = {event["step"]: list(event["losses"].values()) for event in events(folder, "evaluated")}
    return np.concatenate([np.array(list(trained.values())), np.array(list(held_out.values())).ravel()])


def killed_and_resumed(job: Path) -> Path:
    """Kill the run once its first checkpoint is on the disk, and start it again."""
    process = start(job)
    while not events(job.parent, "checkpointed") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = run(job)
    resumed = [event["resumed_from"] for event in events(folder, "started")]
    if resumed[-1] is None:
        raise SystemExit(f"{job}: was killed and began at step 0")
    return folder
