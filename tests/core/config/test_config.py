"""params.yaml: every problem at once, each with its field and value; the committed file loads."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from velocitune_core.config import (
    HOW_PROXIES_RUN,
    RENAMED,
    ConfigError,
    Mixture,
    Params,
    Resources,
    Swarm,
    WantedMixture,
    load_params,
    parse_params,
)

ROOT = Path(__file__).parents[3]
SOURCE = {"type": "jsonl", "path": "x.jsonl"}
SMALLEST = {
    "domains": {"code": {"source": SOURCE}, "papers": {"source": SOURCE}},
    "data": {"path": "data/raw"},
    "model": {"path": "models/base"},
    "training": {"optimizer": {"learning_rate": 1e-3}},
}
MANY_PROBLEMS = """\
domains:
  code:
    source: {type: csv, path: code.csv}
    max_tokens: "500000"
  ../x:
    source: {type: jsonl, path: x.jsonl}
evaluation: {every_steps: 0}
model: {path: models/base}
mixture: {initial_domain_weights: {code: 0.5, papers: 0.4}}
proxies: {fractions: [0.5, 0.25, 0.1]}
training:
  batch_sequences: 16.0
  batch_size: 16
  optimizer: {}
trackng: {uri: x}
"""


def problems(**sections: object) -> list[str]:
    """The lines of the refusal of the smallest file with these sections added."""
    with pytest.raises(ConfigError) as refusal:
        parse_params({**SMALLEST, **sections})
    origin, *lines = str(refusal.value).splitlines()
    assert origin == "params.yaml:"
    return [line.strip() for line in lines]


def test_the_committed_file_loads() -> None:
    params = load_params(ROOT / "params.yaml")
    assert "general" in params.domains
    assert set(yaml.safe_load((ROOT / "params.yaml").read_text())) == set(type(params).model_fields)  # every section


@pytest.mark.parametrize("place", ["node-0:70000", "node-0:0", "node-0", ":29500", "node-0:first"])
def test_a_rendezvous_without_a_port_is_refused(place: str) -> None:
    with pytest.raises(ValidationError, match=f"'{place}' is not host:port with a port from 1 to 65535"):
        Resources(nodes=2, rendezvous=place)
    assert Resources(nodes=2, rendezvous="[::1]:29500").rendezvous == "[::1]:29500"


def test_the_smallest_file_has_defaults() -> None:
    params = parse_params(SMALLEST)
    assert params.strategy.name == "velocitune"
    assert params.training.token_budget is None
    assert params.training.optimizer.betas == (0.9, 0.95)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(MANY_PROBLEMS)
    with pytest.raises(ConfigError) as refusal:
        load_params(path)
    origin, *lines = str(refusal.value).splitlines()
    assert origin == f"{path}:"
    expected = {
        "data": "required",
        "domains.code.source.type": "'csv'",
        "domains.code.max_tokens": "'500000'",
        "domains.../x": "'../x'",
        "evaluation.every_steps": "0",
        "mixture.initial_domain_weights": "weights sum to 0.9000; make them sum to 1",
        "proxies.fractions": "[0.5, 0.25, 0.1] must be one or more, and increase within (0, 1]",
        "training.batch_sequences": "16.0",
        "training.batch_size": "unknown key; remove it or check its spelling",
        "training.optimizer.learning_rate": "required",
        "trackng": "unknown key",
    }
    found = dict(line.strip().split(": ", 1) for line in lines)
    assert set(found) == set(expected)
    for field, problem in expected.items():
        assert problem in found[field], field


@pytest.mark.parametrize(
    ("proxies", "problem"),
    [
        ({"fractions": []}, "proxies.fractions: [] must be one or more, and increase within (0, 1]"),
        (
            {"fractions": [0.1, 0.5, 0.5]},
            "proxies.fractions: [0.1, 0.5, 0.5] must be one or more, and increase within (0, 1]",
        ),
        ({"fractions": [0.1, 0.5, 1.5]}, "proxies.fractions.2: Input should be less than or equal to 1 (got 1.5)"),
        ({"seeds": [1, 1]}, "proxies.seeds: [1, 1] must be one or more distinct seeds"),
        ({"seeds": []}, "proxies.seeds: [] must be one or more distinct seeds"),
    ],
)
def test_proxies_that_give_no_law(proxies: dict, problem: str) -> None:
    assert problems(proxies=proxies) == [problem]


def test_too_few_points_for_a_law_are_refused_wherever_targets_are_set() -> None:
    (problem,) = problems(proxies={"fractions": [0.1, 0.5]})
    assert "proxies.fractions [0.1, 0.5]: a scaling law needs at least three" in problem
    alone = {"proxies": {"fractions": [0.2]}, "targets": {"points": "intermediate"}}
    assert parse_params({**SMALLEST, **alone}).fewest_proxies == 1
    (problem,) = problems(**alone | {"proxies": {"fractions": [0.2], "evaluations": 2}})
    assert "proxies.evaluations 2 are too few for the law along a proxy" in problem
    runs = {"static": {"strategy": "static"}, "one": {"strategy": "velocitune", "targets": {"fractions": [0.2]}}}
    (problem,) = problems(compare={"runs": runs})
    assert "compare.runs.one.targets: fractions [0.2]: a scaling law needs" in problem
    runs["one"]["targets"] = {"fractions": [0.4, 0.2], "points": "last"}
    lines = "; ".join(problems(compare={"runs": runs}))
    assert "must be one or more, and increase" in lines and "Input should be 'final' or 'intermediate'" in lines


def test_a_warmup_and_a_decay_longer_than_the_run() -> None:
    def with_schedule(**schedule: object) -> dict[str, object]:
        return {**SMALLEST["training"], "schedule": {"kind": "wsd", "decay_fraction": 0.5, **schedule}}

    (problem,) = problems(training=with_schedule(warmup_fraction=0.6))
    assert "warmup_fraction 0.6 and decay_fraction 0.5 are more than all steps together; lower one" in problem
    for fits in ({"warmup_fraction": 0.5}, {"warmup_fraction": 0.6, "warmup_steps": 10}):
        parse_params({**SMALLEST, "training": with_schedule(**fits)})


def test_weights_that_name_other_domains() -> None:
    (problem,) = problems(mixture={"initial_domain_weights": {"code": 0.5, "law": 0.5}})
    assert "mixture.initial_domain_weights names code, law, domains are code, papers" in problem


def test_sets_that_are_only_measured() -> None:
    code, papers = {"source": SOURCE}, {"source": SOURCE, "measure_only": True}
    weights = {"initial_domain_weights": {"code": 1.0}}
    params = parse_params({**SMALLEST, "domains": {"code": code, "papers": papers}, "mixture": weights})
    assert params.training_domains == ["code"]
    (problem,) = problems(domains={"code": code, "papers": papers | {"max_tokens": 9}})
    assert "domains.papers: max_tokens 9 limits training text, and measure_only leaves none" in problem
    (problem,) = problems(domains={"papers": papers})
    assert "domains: all of them are measure_only" in problem


def test_options_of_a_plan_change_the_mixture() -> None:
    mixture = Mixture(swarm=Swarm(runs=8))
    changed = mixture.changed({"swarm": {"min_share": 0.1}, "objective": {"average": {"code": 1.0}}})
    assert changed.swarm == Swarm(runs=8, min_share=0.1)
    assert changed.objective == WantedMixture(average={"code": 1.0})
    with pytest.raises(ValueError, match=r"no option runs; it has objective and swarm, "):
        mixture.changed({"runs": 3})
    with pytest.raises(ValueError, match=r"(?s)swarm.fractions: \[0.4, 0.2\] must be .*swarm.sise: unknown key"):
        mixture.changed({"swarm": {"fractions": [0.4, 0.2], "sise": 3}})
    assert Mixture().model_dump() == {"initial_domain_weights": None}  # old settings stay what they are


def test_weights_may_be_rounded() -> None:
    weights = {"code": 0.333, "papers": 0.6666}
    assert parse_params({**SMALLEST, "mixture": {"initial_domain_weights": weights}}).mixture == Mixture(
        initial_domain_weights=weights
    )
    (problem,) = problems(mixture={"initial_domain_weights": {"code": -0.5, "papers": 1.5}})
    assert problem.startswith("mixture.initial_domain_weights.code: ") and "(got -0.5)" in problem


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "-x", "a b", "a\n", "ä", "a.b", "x" * 129])
def test_domain_names_that_would_be_no_file_names(name: str) -> None:
    assert repr(name) in "\n".join(problems(domains={name: {"source": SOURCE}}))


@pytest.mark.parametrize("name", ["code", "c4-en", "wiki_2024", "7", "x" * 128])
def test_domain_names_that_are_fine(name: str) -> None:
    assert list(parse_params({**SMALLEST, "domains": {name: {"source": SOURCE}}}).domains) == [name]


def test_batches_that_do_not_divide() -> None:
    training = {**SMALLEST["training"], "batch_sequences": 10}
    (problem,) = problems(training=training, execution={"micro_batch_sequences": 4})
    assert "training.batch_sequences 10 is not a multiple of execution.micro_batch_sequences 4" in problem
    base = {"training": {**SMALLEST["training"], "batch_sequences": 6}}
    (problem,) = problems(base=base, execution={"micro_batch_sequences": 4})
    assert "base.training.batch_sequences 6 is not a multiple of execution.micro_batch_sequences 4" in problem


def test_a_batch_that_processes_cannot_share() -> None:
    training = {"optimizer": {"learning_rate": 1e-3}, "batch_sequences": 6}
    (problem,) = problems(training=training, resources={"processes": 4})
    assert "training.batch_sequences 6 is not a multiple of 4 processes" in problem


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_that_are_none(value: float) -> None:
    (problem,) = problems(training={"optimizer": {"learning_rate": value}})
    assert problem.startswith("training.optimizer.learning_rate: ")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_reported_with_its_new_name(old: str, new: str) -> None:
    *sections, last = old.split(".")
    tree: dict[str, Any] = deepcopy(SMALLEST)
    if sections[0] == "base":
        tree["base"] = {"training": deepcopy(SMALLEST["training"])}
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = 1
    with pytest.raises(ConfigError) as refusal:
        parse_params(tree)
    assert f"  {old}: renamed to {new}" in str(refusal.value).splitlines()


@pytest.mark.parametrize("new", RENAMED.values())
def test_a_new_name_is_a_key_of_the_settings(new: str) -> None:
    section, key = new.split(".")
    assert key in Params.model_fields[section].annotation.model_fields


def test_the_recipe_leaves_out_how_runs_are_computed() -> None:
    recipe = parse_params(SMALLEST).recipe()
    how = {
        "execution": {"compile": "never", "log_every_steps": 1},
        "resources": {"threads": 3},
        "tracking": {"experiment": "x"},
        "proxies": {"processes": 2, "retries": 0, "runner": "ray"},
    }
    assert parse_params({**SMALLEST, **how}).recipe() == recipe
    assert parse_params({**SMALLEST, "proxies": {"evaluations": 2}}).recipe() != recipe


def test_dvc_watches_no_setting_of_how_runs_are_computed() -> None:
    how = {"execution", "resources", "tracking", *(f"proxies.{key}" for key in HOW_PROXIES_RUN)}
    for file in ("dvc.yaml", "inputs/corpus/dvc.yaml", "inputs/base/dvc.yaml", "comparison/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"].items():
            for key in stage.get("params", []):
                watched = key if key.count(".") and key.split(".")[0] == "proxies" else key.split(".")[0]
                assert watched not in how and key != "proxies", f"{file}: {name} watches {key}"


CONSTANT = {
    "uniform": {"strategy": "uniform"},
    "hot": {"strategy": "temperature", "options": {"temperature": 3.0}},
    "warm": {"strategy": "temperature"},
    "velocitune": {"strategy": "velocitune"},
    "means": {"strategy": "static", "weights_of": "velocitune"},
    "static": {"strategy": "static"},
}


def test_the_frontier_is_made_of_all_constant_mixtures() -> None:
    def frontier(**compare: object) -> list[str]:
        found = parse_params({**SMALLEST, "compare": {"runs": CONSTANT, **compare}}).compare
        assert found is not None
        return found.frontier_labels

    assert frontier() == ["static", "warm", "hot", "uniform"] and frontier(frontier=["static"]) == ["static"]
    few = {label: CONSTANT[label] for label in ("velocitune", "static")}
    assert frontier(runs=few) == ["static"] and frontier(runs={"static": CONSTANT["static"]}) == ["static"]


def test_labels_that_are_gone_come_with_what_mends_them() -> None:
    runs = {label: CONSTANT[label] for label in ("uniform", "velocitune", "means")} | {"size": {"strategy": "static"}}
    with pytest.raises(ConfigError) as refused:
        parse_params({**SMALLEST, "compare": {"runs": runs, "frontier": ["static", "uniform", "hot"]}})
    assert "-S compare.baseline=size;" in str(refused.value)
    assert "frontier names static, hot, runs are uniform, velocitune, means, size; give -S compare.frontier=null" in (
        str(refused.value)
    )
    runs.pop("velocitune")
    with pytest.raises(ConfigError, match=r"names 'velocitune', runs are .*; add that label, or remove means"):
        parse_params({**SMALLEST, "compare": {"runs": runs, "baseline": "size"}})
