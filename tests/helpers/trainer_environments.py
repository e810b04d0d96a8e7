"""An environment for each other trainer, with its own package over the project's: no torch is fetched.

They are made in the folder that VELOCITUNE_EXPORT_ENVIRONMENTS names, and used again from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

FOLDER = "VELOCITUNE_EXPORT_ENVIRONMENTS"
PACKAGES: Mapping[str, Sequence[str]] = {  # exactly these, without what they depend on beyond the project's packages
    "megatron": ("megatron-core==0.16.1",),
    "olmo-core": (
        "ai2-olmo-core==3.0.0",
        "bettermap==1.3.1",
        "boto3==1.44.8",
        "botocore==1.44.8",
        "cached_path==1.8.10",
        "dataclass_extensions==0.5.0",
        "google-cloud-core==2.8.0",
        "google-cloud-storage==3.17.1",
        "google-crc32c==1.9.0",
        "google-resumable-media==2.11.0",
        "jmespath==1.1.0",
        "s3transfer==0.19.3",
    ),
    "levanter": (
        "levanter==1.2.dev1644",
        "absl-py==2.5.1",
        "aqtp==0.9.0",
        "async-lru==2.4.0",
        "braceexpand==0.1.7",
        "cachebox==6.2.10",
        "chex==0.1.92",
        "dataclasses-json==0.6.7",
        "deepdiff==9.1.0",
        "draccus==0.11.6",
        "equinox==0.13.8",
        "flax==0.12.8",
        "haliax==1.4.dev443",
        "humanfriendly==10.0",
        "jax==0.7.2",
        "jaxlib==0.7.2",
        "jaxtyping==0.3.11",
        "jmp==0.0.4",
        "marshmallow==4.4.0",
        "mergedeep==1.3.4",
        "ml_dtypes==0.6.0",
        "mypy_extensions==1.2.0",
        "opt_einsum==3.4.0",
        "optax==0.2.8",
        "orderly-set==5.5.0",
        "pytimeparse==1.1.10",
        "pyyaml-include==2.2",
        "tblib==3.2.2",
        "tensorstore==0.1.86",
        "toolz==1.2.0",
        "tqdm-loggable==0.4.1",
        "typing-inspect==0.9.0",
        "wadler_lindig==0.1.8",
    ),
    "llama-factory": ("llamafactory==0.9.5", "peft==0.21.2"),
    "ms-swift": (
        "ms-swift==4.6.0",
        "json_repair==0.64.6",
        "modelscope==1.40.2",
        "modelscope_hub==0.5.1",
        "peft==0.21.2",
    ),
    "streaming": (
        "mosaicml-streaming==0.13.0",
        "brotli==1.2.1",
        "catalogue==2.0.10",
        "cramjam==2.14.0",
        "python-snappy==0.7.3",
        "zstd==1.5.7.2",
    ),
    "trl": ("trl==1.16.0",),
}
# Modules of images and sound that a package imports at its start, and that nothing here uses.
STAND_INS: Mapping[str, Mapping[str, str]] = {
    "llama-factory": {"torchaudio/__init__.py": ""},
    "streaming": {
        "torchvision/__init__.py": "",
        "torchvision/datasets.py": "class VisionDataset: ...\n",
        "torchvision/transforms/__init__.py": "",
        "torchvision/transforms/functional.py": "def to_tensor(image): raise NotImplementedError\n",
    },
}


def environment(name: str) -> Path:
    """Return the Python of a trainer's environment, made if it is not there; skip the test where no registry is."""
    folder = Path(os.environ[FOLDER]) / name
    python, ready = folder / "bin/python", folder / ".ready"
    wanted = "\n".join(PACKAGES[name])
    if not ready.is_file() or ready.read_text(encoding="utf-8") != wanted:
        venv.create(folder, with_pip=False, clear=True)
        (packages,) = (folder / "lib").glob("python*/site-packages")
        (packages / "project.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        done = subprocess.run([*install, *PACKAGES[name]], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        for file, text in STAND_INS.get(name, {}).items():
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            (packages / file).write_text(text, encoding="utf-8")
        ready.write_text(wanted, encoding="utf-8")
    return python
