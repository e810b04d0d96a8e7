"""Files for other trainers, read by the trainers themselves, which then draw 10⁵ examples.

That of Hugging Face datasets is part of every run. The others need an environment each, of a few megabytes over the
project's; `make test-exports` makes them and runs these tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import export_samples as samples
import numpy as np
import pytest
import trainer_parsers
from trainer_environments import FOLDER, PACKAGES, environment

from velocitune_core.export import FORMATS, Destination, Exported, export

DRAWS = 100_000
TIMES = 60  # the samples' documents, so that 10⁵ draws do not exhaust all domains
WANTED = {"code": 0.5, "legal": 0.3, "off": 0.2}
PROGRAM = Path(trainer_parsers.__file__)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of each domain as JSON lines with the tokens of a document, and as token files of 2 bytes a token."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, (tokens, documents) in samples.SIZES.items():
        lengths = 1 + random.multinomial(
            TIMES * (tokens - documents), np.full(TIMES * documents, 1 / (TIMES * documents))
        )
        rows = [json.dumps({"domain": name, "tokens": int(length)}) for length in lengths]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        (folder / name).mkdir()
        np.zeros(tokens, np.uint16).tofile(folder / name / "part-0.npy")
    return folder


@pytest.mark.slow
def test_datasets_draws_the_shares(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets  # a second, which the collection of tests need not wait for

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found, file = _export("datasets", data, tmp_path)
    spec = importlib.util.spec_from_file_location("exported_mixture", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.mixture(seed=1, streaming=False)[:DRAWS]
    tokens: Counter[str] = Counter()
    for domain, count in zip(table["domain"], table["tokens"], strict=True):
        tokens[domain] += count
    _close(Counter(table["domain"]), _written(found))
    _close(tokens, WANTED, draws=DRAWS)


@pytest.mark.slow
@pytest.mark.skipif(FOLDER not in os.environ, reason="make test-exports makes environments of the other trainers")
@pytest.mark.parametrize("name", PACKAGES)
def test_a_trainer_reads_and_draws_the_shares(name: str, data: Path, tmp_path: Path) -> None:
    found, file = _export(name, data, tmp_path)
    draws = samples.TOKENS if name == "olmo-core" else DRAWS
    read = _read_by(name, file, data, tmp_path, draws)
    print(name, read)  # noqa: T201
    assert _by_domain(read["shares"], found) == pytest.approx(_written(found))
    drawn = Counter(_by_domain(read["drawn"], found))
    _close(drawn, _written(found))
    if "tokens" in read:
        _close(Counter(read["tokens"]), WANTED, draws=drawn.total())
    if name == "streaming":
        assert read["epoch_size"] == samples.STEPS * samples.BATCH
    if name == "trl":  # as many as its smallest domain allows, each once
        assert drawn["off"] == TIMES * samples.SIZES["off"][1]


@pytest.mark.slow
@pytest.mark.skipif(FOLDER not in os.environ, reason="make test-exports makes environments of the other trainers")
def test_levanter_draws_what_is_written_beside_its_stages(data: Path, tmp_path: Path) -> None:
    found, file = _export("levanter", data, tmp_path, schedule="stages")
    read = _read_by("levanter", file, data, tmp_path, samples.STEPS * samples.BATCH)
    assert [start for start, _ in read["stages"]] == [step * samples.BATCH for step in samples.STAGES]
    drawn = {row.domain: (row.tokens or 0) // samples.LENGTH for row in found.rows if row.weight > 0}
    assert read["drawn"] == drawn


def _export(name: str, data: Path, folder: Path, schedule: str = "mean") -> tuple[Exported, Path]:
    """Export the samples' mixture, with the data where this trainer looks for it."""
    places = {
        "levanter": "{domain}",
        "llama-factory": "{domain}",
        "megatron": "{domain}",
        "olmo-core": f"{data}/{{domain}}/*.npy",
        "streaming": f"{folder}/{{domain}}",
    }
    where = Destination(
        schedule=schedule,
        paths={"": places.get(name, f"{data}/{{domain}}.jsonl")},
        tokens=100_000 if name == "trl" else None,
    )
    found = export(samples.mixture(), FORMATS[name], where)
    file = folder / f"mixture{FORMATS[name].suffix}"
    file.write_text(found.files[""], encoding="utf-8")
    return found, file


def _read_by(name: str, file: Path, data: Path, folder: Path, draws: int) -> dict:
    """Return what the trainer's own code reads in the file, and draws."""
    python = environment(name)
    quiet = {"DISABLE_VERSION_CHECK": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(PROGRAM), name, str(file), str(data), str(draws)]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _written(found: Exported) -> dict[str, float]:
    return {name: float(share) for name, share in found.block.shares.items()}


def _by_domain(read: Mapping[str, float], found: Exported) -> dict[str, float]:
    """Return what was read under the names of the domains, where the trainer has their places."""
    names = {path: name for name, path in found.block.paths.items()}
    return {names.get(key, key): value for key, value in read.items()}


def _close(counts: Counter[str], shares: Mapping[str, float], *, draws: int | None = None) -> None:
    """Compare shares within four standard deviations, each its own.

    The variance of a share p is p·(1 − p) / draws where all that is drawn is equally long. Shares of the tokens of
    `draws` documents deviate more, as few of them are long: their variance is that of a ratio of two sums.
    """
    total = counts.total()
    lengths = dict.fromkeys(shares, 1.0)
    if draws is not None:
        lengths = {name: tokens / documents for name, (tokens, documents) in samples.SIZES.items() if name in shares}
    mean = 1 / sum(share / lengths[name] for name, share in shares.items())
    for name, share in shares.items():
        squares = sum(each * lengths[other] * ((other == name) - share) ** 2 for other, each in shares.items())
        assert abs(counts[name] / total - share) <= 4 * (squares / mean / (draws or total)) ** 0.5, name


def test_the_tolerance_is_that_of_each_share() -> None:
    """0.021277 of 10⁵ draws deviate by 0.0018 at most; half a percent more is another mixture."""
    shares = {"rare": 0.021277, "common": 0.978723}
    _close(Counter(rare=2_300, common=97_700), shares)
    with pytest.raises(AssertionError, match="rare"):
        _close(Counter(rare=2_600, common=97_400), shares)
