"""What YAML reads in another way than it looks is refused with its line; everything else is read as YAML reads it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from velocitune_core.config import CompareRun, ConfigError, StrategyConfig, load_params_from, parse_yaml
from velocitune_core.config.misread import advice_on, as_yaml


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse_yaml(text, "params.yaml")
    heading, *lines = str(refused.value).splitlines()
    assert heading == "params.yaml:"
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("domains:\n  a: 1\n  b: 2\n  a: 3", "domains.a: twice, in lines 2 and 4; rename or remove one"),
        ("a: 1\na: 1", "a: twice, in lines 1 and 2; rename or remove one"),
        ("runs: [{a: 1,\n a: 2}]", "runs.0.a: twice, in lines 1 and 2; rename or remove one"),
        ("weights: {a: 0.5, b: 0.3, a: 0.2}", "weights.a: twice, in line 1; rename or remove one"),
        ("domains:\n  no: 1", "domains.no: line 2: YAML reads this key as False: quote it: 'no':"),
        ("2024: 1", "2024: line 1: YAML reads this key as 2024: quote it: '2024':"),
        ("~: 1", "~: line 1: YAML reads this key as None: quote it: '~':"),
        ("at: 2024-13-01", "at: line 1: YAML reads 2024-13-01 as a date that does not exist: quote it"),
        ("seed: 010", "seed: line 1: YAML reads 010 as 8: write that, or quote it"),
        ("at: [10:30]", "at.0: line 1: YAML reads 10:30 as 630: write that, or quote it"),
    ],
)
def test_what_looks_otherwise_is_refused_with_its_line(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_all_problems_come_at_once() -> None:
    assert len(problems("a: 010\na: 2\nno: 3")) == 3


@pytest.mark.parametrize("text", ["1e-5", "-1E+5", "1.5e-3", "+2_0.e1", "1e-05"])
def test_exponents_make_numbers_whatever_else_is_written(text: str) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": float(text.replace("_", ""))}
    assert parse_yaml(f"a: '{text}'", "x") == {"a": text}


def test_merged_keys_and_aliases_may_be_overridden() -> None:
    text = "one: &one {a: 1, b: 2}\ntwo: {<<: *one, a: 3}\nthree: *one"
    assert parse_yaml(text, "x") == {"one": {"a": 1, "b": 2}, "two": {"a": 3, "b": 2}, "three": {"a": 1, "b": 2}}


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.dates()
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@settings(max_examples=40)
@given(trees)
def test_what_a_program_writes_is_read_as_it_was(tree: object) -> None:
    assert parse_yaml(yaml.safe_dump(tree), "x") == tree


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_advice_on_numbers_is_read_as_that_number(number: float) -> None:
    assert yaml.safe_load(as_yaml(number)) == number


@pytest.mark.parametrize(
    ("text", "of_a_number", "of_an_integer"),
    [
        ("0,002", "write the decimals with a point: 0.002", "write a whole number"),
        ("-1,5e-4", "write the decimals with a point: -0.00015", "write a whole number"),
        ("1.000,5", "write the decimals with a point", "write the decimals with a point"),
        ("12,34,567", "write the decimals with a point", "write the decimals with a point"),
        ("0,000", "write the decimals with a point: 0", "write 0, without the comma"),
        ("1,00", "write the decimals with a point: 1", "write 1, without the comma"),
        ("1,234.5", "write 1234.5", "write a whole number"),
        ("1,000", "write 1000, or 1.000 if decimals follow the comma", "write 1000"),
        ("16,000,000", "write 16000000", "write 16000000"),
        ("1e3", "write 1000", "write 1000"),
        ("1_000", "write 1000", "write 1000"),
        ("1.5", "write 1.5", "write a whole number"),
    ],
)
def test_a_comma_is_no_separator_unless_three_digits_follow(text: str, of_a_number: str, of_an_integer: str) -> None:
    as_text = "YAML reads it as text: "
    assert advice_on(text, "float_type").removeprefix(as_text) == of_a_number
    assert advice_on(text, "int_type").removeprefix(as_text) == of_an_integer


def test_an_option_of_a_strategy_is_no_text_with_a_comma() -> None:
    for section in (StrategyConfig, CompareRun):
        with pytest.raises(ValidationError, match=r"step_size: '0,5' is no number; .* with a point: 0\.5"):
            section.model_validate({"name": "velocitune", "strategy": "velocitune", "options": {"step_size": "0,5"}})
    assert StrategyConfig(options={"gap_policy": "hold", "names": "a,b"}).options["names"] == "a,b"
    assert StrategyConfig(name="mine:Mine", options={"columns": "1,2"}).options["columns"] == "1,2"
    assert CompareRun(strategy="mine:Mine", options={"columns": "1,2"}).options["columns"] == "1,2"


@pytest.mark.parametrize("text", ["", ",", "_", "1,2,a", "0x10", "about 5"])
def test_what_is_no_number_gets_no_advice(text: str) -> None:
    assert advice_on(text, "float_type") in {"", "YAML reads it as text: write the decimals with a point"}


def test_values_that_yaml_reads_as_another_type_are_refused_with_what_to_write() -> None:
    text = """
data: {path: 2024}
domains: {a: {source: {type: jsonl, path: on}, max_tokens: "1,000"}}
model: {path: 2024-01-01}
training: {token_budget: 1.0e+9, optimizer: {learning_rate: '1e-5'}}
"""
    with pytest.raises(ConfigError) as refused:
        load_params_from(text.encode(), "params.yaml")
    endings = {line.split(":")[0].strip(): line.rpartition("; ")[2] for line in str(refused.value).splitlines()[1:]}
    assert endings == {
        "data.path": "YAML reads it as a number: quote it",
        "domains.a.source.path": "YAML reads it as a truth value: quote it",
        "domains.a.max_tokens": "YAML reads it as text: write 1000",
        "model.path": "YAML reads it as a date: quote it",
        "training.token_budget": "a whole number: write 1000000000",
        "training.optimizer.learning_rate": "YAML reads it as text: write 1.0e-5",
    }
