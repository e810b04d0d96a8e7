"""Runs as the settings and the manifest describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_samples import BATCH, INITIAL, LENGTH, MANIFEST, SIZES, TARGETS, changed, domain, training

from tasks.runs.budget import check_budget, pipeline_steps, steps_for, token_budget
from tasks.runs.jobs import (
    base_domains,
    base_job,
    compared_job,
    initial_domain_weights,
    proxy_jobs,
    search_job,
    training_job,
)
from velocitune_core.config import (
    ConfigError,
    Params,
    parse_params,
)
from velocitune_core.contracts import (
    Border,
    DocumentBorders,
    DomainTarget,
    Targets,
)
from velocitune_core.strategies import PRESETS
from velocitune_core.train.job import TrainJob


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 40),  # one epoch: 640 sequences in batches of 16
        ({"batch_sequences": 17}, 37),  # the rest of 11 sequences is left out
        ({"token_budget": 10 * BATCH * LENGTH}, 10),
        ({"token_budget": 11 * BATCH * LENGTH - 1}, 10),
        ({"token_budget": BATCH * LENGTH}, 1),
        ({"token_budget": 80 * BATCH * LENGTH}, 80),  # two epochs
        ({"token_budget": 80 * BATCH * LENGTH, "max_epochs": 2.0}, 80),
        ({"batch_sequences": 640}, 1),
    ],
)
def test_steps_in_a_budget(changes: dict[str, Any], steps: int) -> None:
    assert steps_for(training(**changes), SIZES, LENGTH) == steps


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"token_budget": BATCH * LENGTH - 1},
            rf"training\.token_budget: {BATCH * LENGTH - 1:,} tokens make 15 sequences of {LENGTH}, less than one step "
            rf"of 16; give at least {BATCH * LENGTH}, or lower training\.batch_sequences",
        ),
        (
            {"batch_sequences": 641},
            r"training\.batch_sequences: 641, and one epoch has 640 sequences, less than one",
        ),
        (
            {"token_budget": 81 * BATCH * LENGTH, "max_epochs": 2.0},
            r"training\.max_epochs: 2\.0 epochs of 640 seq",
        ),
        ({"max_epochs": 0.9}, r"training\.max_epochs: 0\.9 epochs of 640 sequences are less than the budget of 640"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        steps_for(training(**changes), SIZES, LENGTH)


def test_the_token_budget_is_what_the_run_trains_on(params: Params) -> None:
    assert pipeline_steps(params, MANIFEST) == 40
    assert token_budget(params, MANIFEST) == 640 * LENGTH
    budgeted = changed(params, training={"token_budget": 12_345})
    assert token_budget(budgeted, MANIFEST) == 12 * BATCH * LENGTH  # whole steps only


def test_initial_domain_weights_are_in_the_order_of_the_manifest(params: Params) -> None:
    assert list(initial_domain_weights(params, MANIFEST).items()) == [("law", 0.375), ("code", 0.625)]
    given = changed(params, mixture={"initial_domain_weights": {"code": 0.9, "law": 0.1}})
    assert list(initial_domain_weights(given, MANIFEST).items()) == [("law", 0.1), ("code", 0.9)]


def test_a_proxy_for_every_seed_and_fraction(params: Params) -> None:
    jobs = proxy_jobs(changed(params, proxies={"fractions": [0.1, 0.25, 1.0], "seeds": [1, 5]}), MANIFEST)
    assert [job.name for job in jobs] == [
        *("proxy-0_1-seed-1", "proxy-0_25-seed-1", "proxy-1-seed-1"),
        *("proxy-0_1-seed-5", "proxy-0_25-seed-5", "proxy-1-seed-5"),
    ]
    assert [job.fraction for job in jobs] == [0.1, 0.25, 1.0] * 2
    assert [job.total_steps for job in jobs] == [4, 10, 40] * 2  # of 40
    assert [job.evaluation.every_steps for job in jobs] == [1, 3, 10] * 2  # at most four evaluations
    assert [job.training.seed for job in jobs] == [1] * 3 + [5] * 3
    assert len({job.fingerprint() for job in jobs}) == 6
    for job in jobs:
        assert job.strategy.name == "static" and not job.save_model
        assert list(job.initial_domain_weights.items()) == [("law", 0.375), ("code", 0.625)]


def test_a_proxy_trains_as_the_whole_does(params: Params) -> None:
    whole = training_job(params, MANIFEST, INITIAL, TARGETS)
    for proxy in proxy_jobs(params, MANIFEST):
        assert proxy.training == whole.training and proxy.domains == whole.domains
        assert (proxy.model, proxy.model_sha256) == (whole.model, whole.model_sha256)


def test_the_run_reads_the_files_that_the_manifest_names(params: Params) -> None:
    job = training_job(params, MANIFEST, INITIAL, TARGETS)
    assert list(job.domains) == ["law", "code"] and job.total_steps == 40 and job.fraction == 1.0
    code = job.domains["code"]
    assert (code.train, code.train_sha256) == ("prepared/code/train.npy", "code train")
    assert (code.held_out, code.held_out_sha256) == ("prepared/code/held_out.npy", "code held_out")
    assert job.strategy.options == {
        "initial_loss": {"law": 4.0, "code": 5.0},
        "target_loss": {"code": 3.0, "law": 2.0},
    }
    assert job.save_model


def test_a_strategy_gets_only_the_measurements_it_needs(params: Params) -> None:
    static = changed(params, strategy={"name": "static"})
    assert training_job(static, MANIFEST, INITIAL, TARGETS).strategy.options == {}
    warm = changed(params, strategy={"name": "temperature", "options": {"temperature": 2.0}})
    tokens = {name: MANIFEST.domains[name].train.tokens for name in MANIFEST.domains}
    assert training_job(warm, MANIFEST, INITIAL, TARGETS).strategy.options == {
        "temperature": 2.0,
        "domain_tokens": tokens,
    }


def test_a_preset_is_written_out_in_the_job(params: Params) -> None:
    recommended = changed(params, strategy={"name": "recommended"})
    job = training_job(recommended, MANIFEST, INITIAL, TARGETS)
    preset = PRESETS["recommended"]
    assert (job.strategy.name, job.strategy.search) == (preset.strategy, preset.search)
    assert job.strategy.options.items() >= preset.options.items()


def test_a_search_is_as_the_job_on_a_share_of_data_and_steps(params: Params) -> None:
    quarter = changed(params, strategy={"name": "recommended", "search": 0.25})
    job = training_job(quarter, MANIFEST, INITIAL, TARGETS)
    search = search_job(job, SIZES)
    assert (search.name, search.fraction, search.save_model) == ("training-search", 0.25, False)
    assert search.total_steps == round(job.total_steps / 4)
    assert search.evaluation.every_steps == max(1, round(job.evaluation.every_steps / 4))
    assert search.strategy.options == job.strategy.options and search.strategy.search is None


def test_a_strategy_searches_if_it_must_or_is_configured_to(params: Params) -> None:
    def share(**strategy: object) -> float | None:
        return training_job(changed(params, strategy=strategy), MANIFEST, INITIAL, TARGETS).strategy.search

    assert share(name="velocitune") is None
    assert share(name="velocitune", search=0.5) == 0.5
    assert share(name="doremi") == 1.0  # it needs a reference, so it cannot steer the training itself
    assert share(name="doremi", search=0.5) == 0.5


def with_warmup(params: Params, steps: int, kind: str = "cosine", **sections: dict[str, Any]) -> Params:
    """The settings (40 steps, and proxies of 8, 16 and 32) under a fixed warm-up."""
    schedule = {"kind": kind, "warmup_steps": steps, "decay_fraction": 0.2}
    return changed(params, training={"schedule": schedule}, **sections)


@pytest.mark.parametrize(
    ("kind", "most"),
    [("cosine", 7), ("wsd", 6)],  # of the shortest proxy, of 8 steps; a decay over its last 2
)
def test_a_warmup_ends_before_the_decay_of_every_run(params: Params, kind: str, most: int) -> None:
    assert len(proxy_jobs(with_warmup(params, most, kind), MANIFEST)) == 3
    for steps in (most + 1, 10**9):
        problem = rf"training\.schedule\.warmup_steps: a warm-up of {steps} steps .* the proxies of 0\.2 \(8 steps: at"
        for build in (
            lambda settings: proxy_jobs(settings, MANIFEST),
            lambda settings: training_job(settings, MANIFEST, INITIAL, TARGETS),
            lambda settings: check_budget(settings, MANIFEST),
        ):
            with pytest.raises(ConfigError, match=f"{problem} most {most}.*set it to at most {most}"):
                build(with_warmup(params, steps, kind))
    with pytest.raises(ConfigError, match=r"the training \(40 steps"):
        proxy_jobs(with_warmup(params, 10**9, kind), MANIFEST)


def test_a_warmup_ends_in_a_search(params: Params) -> None:
    search = {"name": "velocitune", "search": 0.1}
    with pytest.raises(ConfigError, match=r"5 steps does not end in the search \(4 steps: at most 3\); set it to"):
        proxy_jobs(with_warmup(params, 5, strategy=search), MANIFEST)  # before any run
    compare = {"runs": {"a": {"strategy": "static"}, "b": {"strategy": "velocitune", "search": 0.1}}}
    compared = with_warmup(params, 5, compare={**compare, "baseline": "a", "seeds": [1, 2]})
    assert compared_job(compared, MANIFEST, INITIAL, TARGETS, "a", 1).total_steps == 40
    with pytest.raises(ConfigError, match=r"b-seed-1-search \(4 steps: at most 3\)"):
        compared_job(compared, MANIFEST, INITIAL, TARGETS, "b", 1)


def test_a_warmup_ends_in_the_run_of_the_base(params: Params) -> None:
    def build(warmup: int) -> TrainJob:
        schedule = {"kind": "wsd", "warmup_steps": warmup, "decay_fraction": 0.2}
        settings = {"optimizer": {"learning_rate": 1e-3}, "batch_sequences": 24, "schedule": schedule}
        base = changed(params, base={"domains": ["law"], "training": settings})
        return base_job(base, Path("models/mine"), {"law": domain("law", 240)}, Path("packed"))

    assert build(8).total_steps == 10
    with pytest.raises(
        ConfigError, match=r"base\.training\.schedule\.warmup_steps: .* in the base \(10 steps: at most 8"
    ):
        build(9)


def test_every_domain_needs_a_target(params: Params) -> None:
    some = Targets(domains={"law": DomainTarget(target=2.0)})
    with pytest.raises(ConfigError, match=r"results/targets\.json: no target for \['code'\]"):
        training_job(params, MANIFEST, INITIAL, some)


def test_runs_keep_attention_inside_documents_if_the_manifest_says_so(params: Params) -> None:
    plain = training_job(params, MANIFEST, INITIAL, TARGETS)
    assert "document_start" not in plain.recipe()  # a recipe of before the setting is the same
    end = Border(ids=[7], tokens=["<|end|>"])
    for borders, token in (
        (DocumentBorders(end=end), None),
        (DocumentBorders(end=end, mask=True), 7),
        (DocumentBorders(start=Border(ids=[3, 4], tokens=["a", "b"]), end=end, mask=True), 3),
    ):
        manifest = MANIFEST.model_copy(update={"documents": borders})
        jobs = [training_job(params, manifest, INITIAL, TARGETS), *proxy_jobs(params, manifest)]
        assert {job.document_start for job in jobs} == {token}
        assert (jobs[0].fingerprint() == plain.fingerprint()) == (token is None)


def test_the_base_trains_on_its_domains_in_shares_of_their_size(params: Params) -> None:
    tree = params.model_dump()
    tree["base"] = {"domains": ["law"], "training": {**tree["training"], "token_budget": 32 * BATCH * LENGTH}}
    one = parse_params(tree)
    assert base_domains(one) == ["law"]
    job = base_job(one, Path("models/mine"), {"law": domain("law", 240)}, Path("packed"))
    assert job.initial_domain_weights == {"law": 1.0} and list(job.domains) == ["law"] and job.total_steps == 32
    assert job.domains["law"].train == "packed/law/train.npy"
    assert job.evaluation.every_steps == 4 and job.save_model

    tree["base"]["domains"] = None
    every = parse_params(tree)
    assert base_domains(every) == list(params.domains)
    job = base_job(every, Path("models/mine"), {"law": domain("law", 240), "code": domain("code", 80)}, Path("packed"))
    assert job.initial_domain_weights == {"law": 0.75, "code": 0.25}
