"""The answer: strategy as it was chosen, losses, price, mixture and the verdict, worked out by hand."""

from __future__ import annotations

import comparison_samples as compared
import pytest
import result_samples as samples
import yaml
from planned_samples import planned

from velocitune_core.contracts import Comparison, Steering, TrainResult
from velocitune_core.report.headline import answer, comparison_answer
from velocitune_core.report.prices import price_of_label, price_of_pipeline, runs_spent

LOSSES = "lowered the mean held-out loss of 7 domains from 4.950 to 3.910 nats per token (−21.0 %)"
WORSE = "worse than the base model on general"
NOT_COMPARED = "Whether it beat static training is in comparison/report after make compare or velocitune compare."


def test_the_answer_names_strategy_loss_price_and_what_got_worse() -> None:
    found = answer(samples.report_data())
    price = "at the price of 1.88 runs (training 1 and proxies 0.88)"  # proxies of an eighth, a quarter and a half
    assert found.sentence == f"velocitune {LOSSES}, {price}; {WORSE}. {NOT_COMPARED}"
    assert found.strategy == "velocitune"
    assert found.mixture == samples.train().mean_domain_weights
    copied = yaml.safe_load(found.mixture_yaml)["mixture"]["initial_domain_weights"]
    assert copied == pytest.approx(found.mixture, abs=1e-4)
    assert sum(copied.values()) == pytest.approx(1)


def test_a_preset_is_named_as_it_was_chosen_and_its_search_is_part_of_the_price() -> None:
    found = samples.weights().model_copy(update={"strategy": "recommended"})
    report = samples.report_data(weights=found, train=samples.train(strategy="static"))
    assert answer(report).strategy == "recommended"
    price = "at the price of 2.88 runs (training 1, proxies 0.88 and search 1.00)"
    assert answer(report).sentence == f"recommended {LOSSES}, {price}; {WORSE}. {NOT_COMPARED}"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cli"], "cli was probably overfitted: its loss rose while its weight grew."),
        (["legal", "cli"], "cli and legal were probably overfitted: their losses rose while their weights grew."),
    ],
)
def test_domains_whose_loss_rose_with_their_weight_are_named(names: list[str], found: str) -> None:
    sentence = answer(samples.report_data(train=samples.overfitted(*names))).sentence
    assert sentence.endswith(f"{NOT_COMPARED} {found}")


def test_a_mixture_that_never_moved_is_said_with_the_loss() -> None:
    start = samples.train().domain_weights[0]
    still = {"mean_domain_weights": start.weights, "domain_weights": [start]}
    train = samples.train().model_copy(update=still)
    moved = f"The mixture did not move: all {train.steps} steps used the domain weights of the start (no update; lower "
    found = answer(samples.report_data(train=train))
    assert found.sentence.startswith(f"velocitune {LOSSES}") and f"; {WORSE}. {moved}" in found.sentence
    static = answer(samples.report_data(train=train.model_copy(update={"strategy": "static"})))
    assert "did not move" not in static.sentence


def test_a_swarm_is_priced_in_operations() -> None:
    static = {name: row[0] for name, row in samples.SEVEN.items()}
    found = planned(static)  # 2(7 + 3) runs of a quarter of the operations
    assert runs_spent(samples.report_data(weights=found)) == pytest.approx({"swarm": 5.0})
    assert found.planned is not None
    shared = [run.model_copy(update={"shared": True}) for run in found.planned.runs[:4]]  # made as proxies
    evidence = found.planned.model_copy(update={"runs": [*shared, *found.planned.runs[4:]]})
    report = samples.report_data(weights=found.model_copy(update={"planned": evidence}))
    assert runs_spent(report) == pytest.approx({"swarm": 5.0})  # the plan needs them, but not the targets
    course = Steering(target_loss=dict.fromkeys(static, 3.0), course={})
    steered = found.model_copy(update={"planned": evidence, "steering": course})
    assert runs_spent(samples.report_data(weights=steered)) == pytest.approx({"proxies": 0.875, "swarm": 4.0})


def test_report_and_comparison_name_the_same_price_and_what_it_contains() -> None:
    """Proxies are part of it where the strategy uses targets; the pipeline trains them for its report in any case."""
    found = planned({name: row[0] for name, row in samples.SEVEN.items()})
    price = "at the price of 6.00 runs (training 1 and {} 5.00 by operations)"
    aside = ", without 0.88 for proxies, which only the targets in this report need"
    report = samples.report_data(weights=found, train=samples.train(strategy="static"))
    assert price_of_pipeline(report) == price.format("swarm") + aside
    assert f"{price.format('swarm')}{aside}; {WORSE}. " in answer(report).sentence
    ends = compared.losses(3.0, 4.2, 5.3)
    runs = [compared.run("static", 1, compared.losses(3.0, 4.2, 5.4))]
    runs += [
        compared.run("planned", 1, ends, search_tokens=5000),
        compared.run("velocitune", 1, ends, uses_targets=True),
    ]
    both = compared.comparison(*runs)
    assert price_of_label(both, "planned") == price.format("search or swarm")
    velocitune = "at the price of 1.88 runs (training 1 and proxies 0.88)"
    assert price_of_label(both, "velocitune") == velocitune == price_of_pipeline(samples.report_data())
    static = samples.report_data(train=samples.train(strategy="static"))
    assert (price_of_label(both, "static"), price_of_pipeline(static)) == (
        "at the price of one run",
        "at the price of one run" + aside,
    )


def test_static_training_is_not_compared_with_itself() -> None:
    report = samples.report_data(train=samples.train(strategy="static"), proxies=())
    assert answer(report).sentence == f"static {LOSSES}, at the price of one run; {WORSE}."


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ((1,), "It ended 0.100 nats below static, which one seed does not decide."),
        ((1, 2, 3), "Its difference to static, −0.200 ± 0.248 nats over 3 seeds, may be chance."),
        ((1, 1, 1), "It beat static by 0.100 ± 0.000 nats over 3 seeds."),
    ],
)
def test_the_comparison_that_holds_this_run_gives_the_verdict(seeds: tuple[int, ...], verdict: str) -> None:
    comparison = _of_recipes(compared.three_seeds(), seeds)
    train = samples.train().model_copy(update={"recipe": "velocitune 1"})
    assert answer(samples.report_data(train=train, comparison=comparison)).sentence.endswith(f" {verdict}")
    other = train.model_copy(update={"recipe": "of other settings"})
    assert answer(samples.report_data(train=other, comparison=comparison)).sentence.endswith(NOT_COMPARED)
    unknown = train.model_copy(update={"recipe": ""})
    assert answer(samples.report_data(train=unknown, comparison=comparison)).sentence.endswith(NOT_COMPARED)


def _of_recipes(comparison: Comparison, lowered_as: tuple[int, ...]) -> Comparison:
    """Return the comparison with a recipe per run, velocitune's lowered as far as those seeds are in the samples."""
    runs = []
    for run in comparison.runs:
        if run.seed > len(lowered_as):
            continue
        final = run.result.final
        if run.label == "velocitune":  # in the samples, seed s ends 0.3 s lower in papers, so 0.1 s in the mean
            final = final | {"papers": final["papers"] + 0.3 * (run.seed - lowered_as[run.seed - 1])}
        changed = {"recipe": f"{run.label} {run.seed}", "final": final}
        runs.append(run.model_copy(update={"result": run.result.model_copy(update=changed)}))
    return comparison.model_copy(update={"runs": runs})


def test_the_answer_of_a_comparison() -> None:
    best = "Of 3 strategies, velocitune has the lowest mean held-out loss, 4.100 ± 0.000 nats per token over 3 seeds"
    price = "at the price of 1.88 runs (training 1 and proxies 0.88)"
    verdict = "Its difference to static, −0.200 ± 0.248 nats over 3 seeds, may be chance."
    assert comparison_answer(compared.three_seeds()) == f"{best}, {price}. {verdict}"
    static = compared.run("static", 1, compared.losses(3.0, 4.2, 5.4))
    alone = "Only static was trained, with a mean held-out loss of 4.200 nats per token over 1 seed."
    assert comparison_answer(compared.comparison(static)) == alone
    worse = compared.run("odm", 1, compared.losses(3.3, 4.2, 5.4))
    nothing = (
        "Nothing beat static: of 2 strategies it has the lowest mean held-out loss, 4.200 nats per token over 1 seed."
    )
    assert comparison_answer(compared.comparison(static, worse)) == nothing


def test_means_over_different_seeds_are_not_ranked() -> None:
    """Seed 3 is harder for all, so that the label without it has the lower mean although it is worse."""
    static = [compared.run("static", seed, compared.losses(3.0, 4.2, at)) for seed, at in enumerate((5.4, 5.4, 9.0), 1)]
    worse = compared.run("odm", 1, compared.losses(3.3, 4.2, 5.4))
    assert comparison_answer(compared.comparison(*static, worse)) == (
        "Nothing beat static: of 2 strategies it has the lowest mean held-out loss on common seeds, "
        "4.600 ± 1.721 nats per token over 3 seeds."
    )
    better = compared.run("velocitune", 1, compared.losses(2.7, 4.2, 5.4))
    assert comparison_answer(compared.comparison(*static, better, worse)) == (
        "Of 3 strategies, velocitune has the lowest mean held-out loss on common seeds, 4.100 nats per token over "
        "1 seed, at the price of one run. It ended 0.100 nats below static, which one seed does not decide."
    )
    dbl = [compared.run("dbl", run.seed, run.result.final | {"code": 2.7}) for run in static]
    found = comparison_answer(compared.comparison(*static, *dbl, better))
    assert found.startswith("Of 2 strategies with all seeds, dbl has the lowest mean held-out loss, 4.500 ± 1.721 nats")


def test_a_run_is_compared_with_the_baseline_that_was_chosen_and_the_baseline_with_nothing() -> None:
    found = _of_recipes(compared.three_seeds(), (1,))
    twins = [run.model_copy(update={"label": "twin"}) for run in found.runs if run.label == "velocitune"]
    comparison = found.model_copy(update={"baseline": "velocitune", "runs": [*found.runs, *twins]})
    report = samples.report_data(train=samples.train(strategy="static"), comparison=comparison)
    ours, baseline, other = (
        report.train.model_copy(update={"recipe": recipe}) for recipe in ("static 1", "velocitune 1", "another")
    )

    def ends(train: TrainResult) -> str:
        return answer(samples.report_data(train=train, comparison=comparison)).sentence.split(f"{WORSE}.")[1]

    assert ends(ours) == " It ended 0.100 nats above velocitune, which one seed does not decide."
    assert ends(baseline) == ""
    assert ends(other) == " " + NOT_COMPARED.replace("static", "velocitune")
