"""A run whose weights changed twice, its data, and the files that every trainer then takes.

`python tests/helpers/export_samples.py` writes the golden files anew; review their diff.
"""

from __future__ import annotations

from pathlib import Path

from velocitune_core.contracts import DomainManifest, LossPoint, Manifest, Split, Timings, TrainResult, WeightPoint
from velocitune_core.export import FORMATS, Destination, Mixture, export, of_training, with_manifest

GOLDEN = Path(__file__).parents[1] / "core/export/golden"
STEPS, BATCH, LENGTH = 40, 16, 256
TOKENS = STEPS * BATCH * LENGTH  # 163 840
SIZES = {
    "code": (102_400, 40),
    "legal": (51_200, 200),
    "off": (25_600, 1000),
    "spare": (12_800, 50),
}  # tokens, documents
STAGES = {  # step → weights; 10, 10 and 20 steps
    0: {"code": 0.6, "legal": 0.3, "off": 0.1, "spare": 0.0},
    10: {"code": 0.5, "legal": 0.3, "off": 0.2, "spare": 0.0},
    20: {"code": 0.45, "legal": 0.3, "off": 0.25, "spare": 0.0},
}
MEAN = {"code": 0.5, "legal": 0.3, "off": 0.2, "spare": 0.0}


def manifest() -> Manifest:
    def split(tokens: int, documents: int) -> Split:
        return Split(file="x.npy", documents=documents, sequences=tokens // LENGTH, tokens=tokens, sha256="0" * 64)

    return Manifest(
        sequence_length=LENGTH,
        vocabulary_size=2048,
        tokenizer_sha256="0" * 64,
        domains={
            name: DomainManifest(
                train=split(*size), held_out=split(4096, 4), documents_read=size[1] + 4, duplicates=0, too_short=0
            )
            for name, size in SIZES.items()
        },
    )


def train(stages: dict[int, dict[str, float]] | None = None) -> TrainResult:
    stages = STAGES if stages is None else stages
    drawn = {name: round(share * TOKENS) for name, share in MEAN.items()}
    losses = dict.fromkeys(MEAN, 3.0)
    return TrainResult(
        name="train",
        strategy="velocitune",
        precision="float32",
        steps=STEPS,
        tokens=TOKENS,
        parameters=1,
        final=losses,
        points=[LossPoint(step=STEPS, tokens=TOKENS, losses=losses)],
        domain_weights=[
            WeightPoint(step=step, tokens=step * BATCH * LENGTH, weights=weights) for step, weights in stages.items()
        ],
        mean_domain_weights=MEAN,
        tokens_per_domain=drawn,
        epochs_per_domain={name: drawn[name] / size for name, (size, _) in SIZES.items()},
        tokens_per_second=1.0,
        seconds=Timings(total=1.0),
    )


def mixture() -> Mixture:
    return with_manifest(of_training(train()), manifest())


def golden_files() -> dict[str, str]:
    """Return the texts of all golden files by name: each trainer's file, and those of stages where it has them.

    TRL repeats nothing, so its run is as long as its smallest domain allows.
    """
    found = {}
    for name, to in FORMATS.items():
        for schedule in ("mean", "stages") if to.stages else ("mean",):
            where = Destination(schedule=schedule, tokens=100_000 if name == "trl" else None)
            for added, text in export(mixture(), to, where).files.items():
                found[f"{name}{'-stages' if schedule == 'stages' else ''}{added}{to.suffix}"] = text
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stale in GOLDEN.iterdir():
        stale.unlink()
    for name, text in golden_files().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
