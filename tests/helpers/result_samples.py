"""Hand-made results of a small run, in the contracts' types: seven domains of 1.5 M tokens, or as many as asked for."""

from __future__ import annotations

from velocitune_core.contracts import (
    DomainManifest,
    DomainTarget,
    Evidence,
    InitialLosses,
    Law,
    LossPoint,
    Manifest,
    ProxyResult,
    Split,
    StartingWeights,
    Targets,
    Timings,
    TrainResult,
    WeightPoint,
    WeightsRun,
)
from velocitune_core.report.summary import ReportData

BUDGET = 1_500_000  # tokens
# domain: original weight, initial, target, reached
SEVEN = {
    "code": (0.334, 4.90, 3.38, 3.30),
    "legal": (0.200, 5.20, 3.15, 3.10),
    "cli": (0.133, 5.60, 3.30, 3.20),
    "papers": (0.133, 4.70, 4.08, 4.05),
    "literature": (0.067, 4.85, 4.48, 4.45),
    "biomed": (0.067, 4.95, 4.57, 4.56),
    "general": (0.066, 4.45, 4.80, 4.71),
}
FINAL_WEIGHTS = {
    "code": 0.21,
    "legal": 0.16,
    "cli": 0.17,
    "papers": 0.15,
    "literature": 0.15,
    "biomed": 0.156,
    "general": 0.004,
}
Domains = dict[str, tuple[float, float, float, float]]


def many(count: int) -> Domains:
    """`count` domains with weights that fall as 1/rank and losses between 2 and 5 nats."""
    total = sum(1 / (rank + 1) for rank in range(count))
    return {
        f"domain-{rank:02d}": (1 / (rank + 1) / total, 4.0 + rank % 4 / 4, 3.0 + rank % 3 / 5, 3.05 + rank % 5 / 7)
        for rank in range(count)
    }


def manifest(domains: Domains = SEVEN) -> Manifest:
    def split(tokens: int) -> Split:
        return Split(file="x.npy", documents=10, sequences=tokens // 256, tokens=tokens, sha256="0" * 64)

    return Manifest(
        sequence_length=256,
        vocabulary_size=2048,
        tokenizer_sha256="0" * 64,
        domains={
            name: DomainManifest(
                train=split(round(BUDGET * weight)), held_out=split(4096), documents_read=12, duplicates=1, too_short=1
            )
            for name, (weight, *_) in domains.items()
        },
    )


def initial(domains: Domains = SEVEN) -> InitialLosses:
    return InitialLosses(
        precision="float32",
        losses={name: row[1] for name, row in domains.items()},
        tokens=dict.fromkeys(domains, 4096),
        seconds=4.0,
    )


def proxies(domains: Domains = SEVEN) -> list[ProxyResult]:
    return [
        ProxyResult(
            name=f"f{fraction}-s1",
            fraction=fraction,
            seed=1,
            precision="float32",
            steps=round(366 * fraction),
            tokens=round(BUDGET * fraction),
            points=[
                LossPoint(
                    step=step,
                    tokens=round(BUDGET * fraction * step / 4),
                    losses={
                        name: _law(row).E + _law(row).B / (BUDGET * fraction * step / 4) ** 0.4 + 0.2 * (1 - step / 4)
                        for name, row in domains.items()
                    },
                )
                for step in (1, 2, 3, 4)
            ],
            seconds=170.0 * fraction,
        )
        for fraction in (0.125, 0.25, 0.5)
    ]


def targets(domains: Domains = SEVEN) -> Targets:
    tokens = [round(BUDGET * fraction) for fraction in (0.125, 0.25, 0.5)]

    def one(row: tuple[float, float, float, float]) -> DomainTarget:
        law = _law(row)
        evidence = Evidence(
            tokens=tokens,
            losses=[law.E + law.B / d**law.beta for d in tokens],
            law=law,
            interval=(row[2] - 0.08, row[2] + 0.12),
            leave_largest_out_error=0.012,
        )
        return DomainTarget(target=row[2], evidence=evidence, flags=["above_initial"] if row[2] > row[1] else [])

    return Targets(domains={name: one(row) for name, row in domains.items()}, token_budget=BUDGET, level=0.95)


def targets_by_hand(domains: Domains = SEVEN) -> Targets:
    return Targets(domains={name: DomainTarget(target=row[2]) for name, row in domains.items()})


def _law(row: tuple[float, float, float, float]) -> Law:
    """Falls by 0.35 nats from an eighth of the budget to the target at all of it."""
    scale = 0.35 / ((BUDGET / 8) ** -0.4 - BUDGET**-0.4)
    return Law(E=row[2] - scale * BUDGET**-0.4, B=scale, beta=0.4)


def weights(domains: Domains = SEVEN) -> StartingWeights:
    """Weights that a search of the whole budget found."""
    run = WeightsRun(name="training-search", folder="training-search-0", tokens=BUDGET, flops=1.5e13, seconds=190.0)
    shares = dict.fromkeys(domains, 1 / len(domains))
    moved = train(domains).domain_weights
    return StartingWeights(
        strategy="velocitune", found_by="search", domain_weights=shares, search=[run], searched=moved
    )


def train(domains: Domains = SEVEN, *, strategy: str = "velocitune") -> TrainResult:
    steps, updates = 366, 30
    original = {name: row[0] for name, row in domains.items()}
    last = FINAL_WEIGHTS if set(domains) == set(FINAL_WEIGHTS) else dict.fromkeys(domains, 1 / len(domains))
    if strategy == "static":
        last = original

    def losses(done: float) -> dict[str, float]:
        return {name: end + (start - end) * (1 - done) ** 3 for name, (_, start, _, end) in domains.items()}

    def weights(done: float) -> dict[str, float]:
        return {name: original[name] + (last[name] - original[name]) * done for name in domains}

    def velocity(done: float) -> dict[str, float]:
        gaps = {name: (start, goal) for name, (_, start, goal, _) in domains.items()}
        return {
            name: min(max((losses(done)[name] - goal) / (start - goal), 0.0), 1.0) if start > goal else 0.0
            for name, (start, goal) in gaps.items()
        }

    fractions = [update / updates for update in range(updates)]
    seen = {name: round(BUDGET * (original[name] + last[name]) / 2) for name in domains}
    return TrainResult(
        name="train",
        strategy=strategy,
        precision="float32",
        steps=steps,
        tokens=BUDGET,
        parameters=1_600_000,
        final={name: row[3] for name, row in domains.items()},
        points=[
            LossPoint(
                step=round(steps * (f + 1 / updates)),
                tokens=round(BUDGET * (f + 1 / updates)),
                losses=losses(f + 1 / updates),
            )
            for f in fractions
        ],
        domain_weights=[
            WeightPoint(
                step=round(steps * f),
                tokens=round(BUDGET * f),
                weights=weights(min(1.0, f * 1.5)),
                velocity=None if strategy == "static" or not f else velocity(f),
            )
            for f in fractions
        ],
        mean_domain_weights=weights(0.75),
        tokens_per_domain=seen,
        epochs_per_domain={name: seen[name] / round(BUDGET * original[name]) for name in domains},
        tokens_per_second=9_000.0,
        seconds=Timings(training=184.0, sampling=2.0, evaluation=7.0, reweighting=1.0, checkpointing=6.0, total=200.0),
    )


def overfitted(*names: str) -> TrainResult:
    """A run in which these domains have their lowest loss at its middle, 0.2 nats below the last, and gain weight."""
    run = train()
    middle = run.points[len(run.points) // 2].step
    points = [
        point.model_copy(
            update={
                "losses": {
                    name: SEVEN[name][3] - (0.2 if point.step == middle else 0.0) if name in names else loss
                    for name, loss in point.losses.items()
                }
            }
        )
        for point in run.points
    ]
    shares = {name: (0.02 if name in names else 1.0) for name in SEVEN}
    weights = [
        point.model_copy(
            update={
                "weights": {
                    name: share * (1 + point.step / run.steps) if name in names else point.weights[name]
                    for name, share in shares.items()
                }
            }
        )
        for point in run.domain_weights
    ]
    return run.model_copy(update={"points": points, "domain_weights": weights})


def report_data(domains: Domains = SEVEN, **changes: object) -> ReportData:
    parts = {
        "manifest": manifest(domains),
        "initial": initial(domains),
        "proxies": tuple(proxies(domains)),
        "targets": targets(domains),
        "train": train(domains),
        "initial_domain_weights": {name: row[0] for name, row in domains.items()},
        "config": "strategy:\n  name: velocitune\n",
    }
    return ReportData(**{**parts, **changes})  # type: ignore[arg-type]
