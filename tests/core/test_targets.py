"""Targets: predicted from known laws, a case for every flag, and evidence worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from velocitune_core import config
from velocitune_core.contracts import ContractError, InitialLosses, LossPoint, ProxyResult, Targets
from velocitune_core.scaling_law import power_law
from velocitune_core.targets import TargetError, fit_targets

BUDGET = 1_600_000
FRACTIONS = (0.1, 0.2, 0.4, 0.8)
FEW = config.Targets(bootstrap=10)
LossOf = Callable[[float], float]


def code(tokens: float) -> float:
    return 2.0 + 400.0 * tokens**-0.4


def papers(tokens: float) -> float:
    return 3.0 + 90.0 * tokens**-0.35


LAWS: dict[str, LossOf] = {"code": code, "papers": papers}


def proxy(fraction: float, laws: Mapping[str, LossOf] = LAWS, seed: int = 1) -> ProxyResult:
    """A proxy of four evaluations whose losses follow the laws."""
    tokens = round(BUDGET * fraction)
    points = [
        LossPoint(
            step=part, tokens=tokens * part // 4, losses={name: of(tokens * part / 4) for name, of in laws.items()}
        )
        for part in (1, 2, 3, 4)
    ]
    return ProxyResult(
        name=f"f{fraction}-s{seed}",
        precision="float32",
        fraction=fraction,
        seed=seed,
        steps=4,
        tokens=tokens,
        points=points,
        seconds=1.0,
    )


def fit(
    laws: Mapping[str, LossOf] = LAWS,
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    settings: config.Targets = FEW,
    initial: float = 9.0,
) -> Targets:
    proxies = [proxy(fraction, laws) for fraction in fractions]
    losses = InitialLosses(
        precision="float32", losses=dict.fromkeys(laws, initial), tokens=dict.fromkeys(laws, 4096), seconds=1.0
    )
    return fit_targets(losses, proxies, BUDGET, settings)


def flags(of: LossOf, **changes: object) -> list[str]:
    return fit({"code": of}, **changes).domains["code"].flags  # type: ignore[arg-type]


def test_targets_are_the_laws_at_the_full_budget() -> None:
    targets = fit()
    assert targets.losses() == pytest.approx({"code": code(BUDGET), "papers": papers(BUDGET)}, rel=1e-4)
    assert (targets.token_budget, targets.level) == (BUDGET, 0.95)
    domain = targets.domains["code"]
    assert domain.flags == []
    evidence = domain.evidence
    assert evidence.tokens == [160_000, 320_000, 640_000, 1_280_000]
    assert evidence.losses == [code(tokens) for tokens in evidence.tokens]
    assert (evidence.law.E, evidence.law.beta) == pytest.approx((2.0, 0.4), rel=0.01)
    low, high = evidence.interval
    assert low <= domain.target + 1e-6 and domain.target <= high + 1e-6
    assert evidence.leave_largest_out_error == pytest.approx(0.0, abs=1e-3)


def test_the_order_of_proxies_does_not_matter() -> None:
    assert fit(fractions=(0.8, 0.1, 0.4, 0.2)) == fit()


def test_what_the_largest_proxies_reached_on_sets_without_training_text_is_kept() -> None:
    initial = InitialLosses(precision="float32", losses=dict.fromkeys(LAWS, 9.0), tokens={}, seconds=1.0)
    proxies = [proxy(fraction, seed=seed) for fraction in FRACTIONS for seed in (1, 2)]
    measured = [each.model_copy(update={"measured": {"qa": 5.0 - each.fraction + 0.1 * each.seed}}) for each in proxies]
    found = fit_targets(initial, measured, BUDGET, FEW)
    assert found.measured is not None and found.measured.tokens == 1_280_000
    assert found.measured.losses == pytest.approx({"qa": 4.35})
    assert set(found.losses()) == set(LAWS)
    assert fit_targets(initial, proxies, BUDGET, FEW).measured is None


def test_leave_largest_out_error_is_that_of_a_law_fitted_to_the_smaller_proxies() -> None:
    """The largest proxy reached 2 % less than the law of the others predicts: (p − 0.98·p) / (0.98·p) = 1/49."""
    largest = BUDGET * 0.8

    def better_at_the_end(tokens: float) -> float:
        return code(tokens) * (0.98 if tokens == largest else 1.0)

    error = fit({"code": better_at_the_end}).domains["code"].evidence.leave_largest_out_error
    assert error == pytest.approx(1 / 49, abs=1e-4)
    assert fit(fractions=(0.1, 0.2, 0.4)).domains["code"].evidence.leave_largest_out_error is None


def anchored(tokens: float) -> float:
    """Return losses that start from 9 nats and fall by half of the gap within 100,000 tokens."""
    return 2.0 + 7.0 * (1 + tokens / 1e5) ** -0.5


def of_law(law: str) -> config.Targets:
    return config.Targets(bootstrap=10, law=law)  # type: ignore[arg-type]


def test_the_anchored_law_passes_through_the_initial_loss() -> None:
    domain = fit({"code": anchored}, settings=of_law("anchored")).domains["code"]
    assert domain.target == pytest.approx(anchored(BUDGET), rel=1e-4)
    law = domain.evidence.law
    assert law.kind == "anchored"
    assert (law.E, law.beta, law.D0) == pytest.approx((2.0, 0.5, 1e5), rel=0.01)
    assert power_law(0, law.E, law.B, law.beta, law.D0) == pytest.approx(9.0)
    assert power_law([BUDGET], law.E, law.B, law.beta, law.D0) == pytest.approx([domain.target])
    assert set(domain.evidence.standard_errors) == {"E", "beta", "D0"}
    assert domain.evidence.other_law is None


def test_auto_takes_the_law_that_predicts_the_largest_proxy_better_and_records_the_other() -> None:
    domains = fit({"code": code, "anchored": anchored}, settings=of_law("auto")).domains
    for name, chosen, other in (("code", "chinchilla", "anchored"), ("anchored", "anchored", "chinchilla")):
        evidence = domains[name].evidence
        assert (evidence.law.kind, evidence.other_law.law.kind) == (chosen, other)
        assert abs(evidence.leave_largest_out_error) < abs(evidence.other_law.leave_largest_out_error)
        alone = fit({name: {"code": code, "anchored": anchored}[name]}, settings=of_law(other)).domains[name]
        assert evidence.other_law.target == pytest.approx(alone.target, rel=1e-6)


def test_auto_without_a_point_to_leave_out_is_the_papers_law() -> None:
    evidence = fit({"code": anchored}, settings=of_law("auto"), fractions=(0.1, 0.2, 0.4)).domains["code"].evidence
    assert (evidence.law.kind, evidence.leave_largest_out_error) == ("chinchilla", None)
    assert evidence.other_law.law.kind == "anchored"


@pytest.mark.parametrize("law", ["anchored", "auto"])
def test_a_domain_that_got_worse_has_no_anchored_law(law: str) -> None:
    """The points fall towards a target above the initial loss."""
    domain = fit({"code": code}, settings=of_law(law), initial=2.1).domains["code"]
    assert domain.evidence.law.kind == "chinchilla"
    assert domain.evidence.other_law is None
    assert domain.target == pytest.approx(code(BUDGET), rel=1e-4)
    assert domain.flags == ["above_initial"]
    rising = fit({"code": lambda tokens: 3.0 + tokens / 1e7}, settings=of_law(law), initial=2.9).domains["code"]
    assert {"not_decreasing", "above_initial"} <= set(rising.flags)


def test_a_loss_that_no_law_fits_names_its_domain() -> None:
    with pytest.raises(TargetError, match=r"papers: held-out loss -1\.0"):
        fit({"code": code, "papers": lambda tokens: -1.0})
    with pytest.raises(TargetError, match=r"code: held-out loss 0\.0"):
        fit({"code": code}, initial=0.0)


def test_seeds_of_one_fraction_are_left_out_together() -> None:
    proxies = [proxy(fraction, seed=seed) for fraction in (0.1, 0.2, 0.4) for seed in (1, 2)]
    initial = InitialLosses(
        precision="float32", losses={"code": 9.0, "papers": 9.0}, tokens={"code": 1, "papers": 1}, seconds=1.0
    )
    domain = fit_targets(initial, proxies, BUDGET, FEW).domains["code"]
    assert len(domain.evidence.tokens) == 6
    assert domain.evidence.leave_largest_out_error is None  # two sizes are left, which no law goes through
    assert domain.target == pytest.approx(code(BUDGET), rel=1e-3)


def test_intermediate_points_are_those_of_the_largest_proxy() -> None:
    settings = config.Targets(points="intermediate", bootstrap=0)
    evidence = fit(fractions=(0.8,), settings=settings).domains["code"].evidence
    assert evidence.tokens == [320_000, 640_000, 960_000, 1_280_000]
    assert evidence.interval is None
    assert fit(settings=settings) == fit(fractions=(0.8,), settings=settings)


def test_one_proxy_gives_targets_of_the_full_budget() -> None:
    """Measurements after 80,000 to 320,000 tokens, read at 1.6 M."""
    targets = fit(fractions=(0.2,), settings=config.Targets(points="intermediate", bootstrap=0))
    assert targets.losses() == pytest.approx({"code": code(BUDGET), "papers": papers(BUDGET)}, rel=1e-3)


def test_flag_too_few_points() -> None:
    assert flags(code, fractions=(0.1, 0.2, 0.4)) == ["too_few_points"]
    assert (
        fit(fractions=(0.1, 0.2, 0.4)).domains["code"].evidence.interval is None
    )  # too few points to estimate the noise
    assert flags(code) == []


def test_flag_missing_proxies() -> None:
    initial = InitialLosses(
        precision="float32", losses={"code": 9.0, "papers": 9.0}, tokens={"code": 1, "papers": 1}, seconds=1.0
    )
    proxies = [proxy(fraction) for fraction in (0.1, 0.2, 0.4)]
    targets = fit_targets(initial, proxies, BUDGET, FEW, missing=["proxy-0_8-seed-1"])
    assert targets.missing_proxies == ["proxy-0_8-seed-1"]
    assert all(domain.flags[-1] == "missing_proxies" for domain in targets.domains.values())
    assert fit_targets(initial, proxies, BUDGET, FEW).missing_proxies == []


def test_flag_above_initial() -> None:
    target = code(BUDGET)
    assert flags(code, initial=target - 0.01) == ["above_initial"]
    assert flags(code, initial=target + 0.01) == []


def test_flags_not_decreasing_and_at_bound() -> None:
    rising = flags(lambda tokens: 3.0 + tokens / 1e7)
    assert "not_decreasing" in rising
    assert "at_bound" in rising
    # falls at last, but all at once: the exponent runs into its bound
    assert "at_bound" in flags(lambda tokens: 6.0 if tokens <= 160_000 else 3.0)


def test_flag_wide_interval() -> None:
    bumps = {160_000: 1.05, 320_000: 0.97, 640_000: 1.03, 1_280_000: 0.98}

    def noisy(tokens: float) -> float:
        return code(tokens) * bumps.get(round(tokens), 1.0)

    found = fit({"code": noisy}).domains["code"]
    (low, high), target = found.evidence.interval, found.target
    near, far = target + 0.9 * (high - low), target + 1.1 * (high - low)
    assert "wide_interval" in flags(noisy, initial=near)  # wider than the gap, so the velocity may be anything
    assert "wide_interval" not in flags(noisy, initial=far)
    assert "wide_interval" not in flags(noisy, initial=target - 0.01)  # no gap: `above_initial` says so
    assert "wide_interval" in flags(noisy, initial=far, settings=config.Targets(bootstrap=10, wide_interval=0.5))
    assert "wide_interval" not in flags(noisy, initial=near, settings=config.Targets(bootstrap=0))


@pytest.mark.parametrize("fractions", [(), (0.1,), (0.1, 0.2), (0.1, 0.2, 0.2)])
def test_fewer_than_three_usable_points_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(TargetError, match=f"'final' gives {len(fractions)} usable points, a law needs at least 3"):
        fit(fractions=fractions)


def test_domains_that_differ_from_those_of_the_base_model_are_refused() -> None:
    initial = InitialLosses(
        precision="float32", losses={"code": 4.0, "law": 4.0}, tokens={"code": 1, "law": 1}, seconds=1.0
    )
    with pytest.raises(TargetError, match=r"measured \['code', 'papers'\], the base model \['code', 'law'\]"):
        fit_targets(initial, [proxy(fraction) for fraction in FRACTIONS], BUDGET, FEW)


def test_targets_are_read_as_they_were_written(tmp_path: Path) -> None:
    targets = fit()
    targets.write(tmp_path / "targets.json")
    assert Targets.read(tmp_path / "targets.json") == targets


def test_a_targets_file_may_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text('{"domains": {"code": {"target": 2.0}}}')
    targets = Targets.read(path)
    assert targets.losses() == {"code": 2.0}
    assert targets.domains["code"].evidence is None
    assert targets.domains["code"].flags == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"domains": {"code": {"target": "low"}}}, r"domains.code.target: .* \(got 'low'\)"),
        ({"domains": {"code": {"target": None}}}, r"domains.code.target"),
        ({"domains": {"code": {"goal": 2.0}}}, r"domains.code.goal: unknown key"),
        ({"domains": {}}, "domains: "),
        ({"domains": {"code": {"target": 2.0}}, "schema_version": 1}, r"schema version 1, .* run the stage"),
    ],
)
def test_a_targets_file_with_mistakes_is_refused(tmp_path: Path, content: dict, message: str) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ContractError, match=message) as refusal:
        Targets.read(path)
    assert str(path) in str(refusal.value)


def test_a_targets_file_that_is_missing_truncated_or_not_finite_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    with pytest.raises(ContractError, match="no such file"):
        Targets.read(path)
    for content in ('{"domains": {"code": {"tar', '{"domains": {"code": {"target": NaN}}}', ""):
        path.write_text(content)
        with pytest.raises(ContractError):
            Targets.read(path)
