"""Each problem of settings is one line in words: what is allowed, and what was probably meant."""

from __future__ import annotations

import pytest

from velocitune_core.config import ConfigError, load_params_from

VALID = """\
domains:
  code: {source: {type: jsonl, path: code.jsonl}}
data: {path: data/raw, sequence_length: 256}
model: {path: models/base}
compare:
  baseline: static
  runs:
    static: {strategy: static}
    fast: {strategy: velocitune, targets: fitted}
training:
  token_budget: 1000
  optimizer: {learning_rate: 1.0e-3}
  schedule: {kind: cosine}
"""
PATHS = "give a name and a source for each domain, such as {code: {source: {type: jsonl, path: code.jsonl}}, "
NAMES = "a name has letters from a to z, digits, '_' and '-', no blanks, and begins with a letter or a digit"


def lines(old: str, new: str) -> list[str]:
    """The lines of the refusal of valid settings with one text in place of another."""
    assert VALID.count(old) == 1
    with pytest.raises(ConfigError) as refused:
        load_params_from(VALID.replace(old, new).encode(), "params.yaml")
    heading, *found = str(refused.value).splitlines()
    assert heading == "params.yaml:"
    return [line.strip() for line in found]


def test_the_settings_without_a_change_are_valid() -> None:
    assert load_params_from(VALID.encode(), "params.yaml").training.token_budget == 1000


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("training:", "trainng:", "trainng: unknown key; remove it or check its spelling; did you mean training?"),
        ("learning_rate", "lerning_rate", "training.optimizer.lerning_rate: unknown key; remove it or check its "),
        ("strategy: velocitune", "strategi: velocitune", "compare.runs.fast.strategi: unknown key; remove it or check"),
        ("type: jsonl", "tpye: jsonl", "domains.code.source.tpye: unknown key; remove it or check its spelling; did "),
        ("targets: fitted", "targets: {lw: auto}", "compare.runs.fast.targets.lw: unknown key; remove it "),
    ],
)
def test_an_unknown_key_comes_with_the_known_one_it_is_like(old: str, new: str, problem: str) -> None:
    (found,) = [line for line in lines(old, new) if "unknown key" in line]
    meant = {
        "trainng": "training",
        "lerning_rate": "learning_rate",
        "strategi": "strategy",
        "tpye": "type",
        "lw": "law",
    }
    section, point, key = problem.partition(":")[0].rpartition(".")
    assert found.startswith(problem) and found.endswith(f"; did you mean {section}{point}{meant[key]}?")


def test_an_unknown_key_that_is_like_none_gets_no_guess() -> None:
    assert lines("training:", "colour: 1\ntraining:") == ["colour: unknown key; remove it or check its spelling"]


@pytest.mark.parametrize(
    ("old", "new", "ending"),
    [
        ("kind: cosine", "kind: cosin", "'cosine' or 'wsd' (got 'cosin'); did you mean cosine?"),
        ("type: jsonl", "type: json", "or 'datasets' (got 'json'); did you mean jsonl?"),
        (
            "kind: cosine}",
            "kind: cosine}\n  precision: float16",
            "or 'bfloat16' (got 'float16'); did you mean bfloat16?",
        ),
        ("type: jsonl", "type: csv", "or 'datasets' (got 'csv')"),
        ("targets: fitted", "targets: zeroo", "and no keys such as {law: anchored}; did you mean zero?"),
    ],
)
def test_one_of_a_few_words_comes_with_the_one_it_is_like(old: str, new: str, ending: str) -> None:
    (found,) = lines(old, new)
    assert found.endswith(ending)


def test_a_label_comes_with_the_one_it_is_like() -> None:
    (found,) = lines("baseline: static", "baseline: statik")
    assert "baseline names 'statik' (did you mean static?), runs are static, fast; add that label, or give" in found


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("200k", "YAML reads it as text: write 200000"),
        ("1.5 M", "YAML reads it as text: write 1500000"),
        ("2B", "YAML reads it as text: write 2000000000"),
        ("0.5%", "write a whole number"),
        ("one", "write it in digits"),
        ("two million", "write it in digits"),
    ],
)
def test_a_number_in_words_or_with_a_unit_is_refused_with_its_digits(value: str, advice: str) -> None:
    assert lines("token_budget: 1000", f"token_budget: {value}") == [
        f"training.token_budget: Input should be a valid integer (got {value!r}); {advice}"
    ]
    (found,) = lines("1.0e-3", "0.7%")
    assert found.endswith("(got '0.7%'); YAML reads it as text: write 0.007")


@pytest.mark.parametrize(
    ("domains", "problem"),
    [
        ("py docs", f"domains: is 'py docs', and no mapping; {PATHS}"),
        ("", f"domains: is empty; {PATHS}"),
        ("{}", f"domains: is empty; {PATHS}"),
        ("[code, law]", f"domains: is ['code', 'law'], and no mapping; {PATHS}"),
        ("code:code.jsonl", "domains: 'code:code.jsonl': a blank is missing after the colon: write code: code.jsonl"),
        ("{code: a.txt}", "domains.code: 'a.txt' is no mapping; write {source: {type: jsonl, path: a.txt}}"),
        ("{code: }", "domains.code: None is no mapping; write {source: {type: jsonl, path: FILE}}"),
        ("{py docs: {source: {type: text, path: a}}}", f"domains.py docs: {NAMES} (got 'py docs')"),
    ],
)
def test_domains_of_another_form_are_refused_with_what_to_write(domains: str, problem: str) -> None:
    found = lines("domains:\n  code: {source: {type: jsonl, path: code.jsonl}}", f"domains: {domains}")
    assert len(found) == 1 and found[0].startswith(problem)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "{kind: cosine}",
            "{kind:cosine}",
            "training.schedule.kind:cosine: a blank is missing after the colon: write ",
        ),
        (
            "{learning_rate: 1.0e-3}",
            "\n    learning_rate:1",
            "training.optimizer: Input should be a mapping of keys to ",
        ),
    ],
)
def test_a_blank_that_is_missing_after_a_colon_is_named(old: str, new: str, problem: str) -> None:
    (found,) = lines(old, new)
    assert found.startswith(problem)
    assert found.endswith(("write kind: cosine", "a blank is missing after the colon: write learning_rate: 1"))


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (
            "{lw: anchored}",
            ".lw: unknown key; remove it or check its spelling; did you mean compare.runs.fast.targets.law?",
        ),
        ("5", ": 5 is none of fitted, zero, random, and no keys such as {law: anchored}"),
    ],
)
def test_a_word_or_keys_are_one_problem(targets: str, problem: str) -> None:
    assert lines("targets: fitted", f"targets: {targets}") == [f"compare.runs.fast.targets{problem}"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("training:", "tracking: mlflow_uri:https://me:s3cret@host\ntraining:"),
        ("{kind: cosine}", "{kind: cosine, uri:https://me:s3cret@host}"),
        ("{source: {type: jsonl, path: code.jsonl}}", "https://me:s3cret@host"),
    ],
)
def test_no_problem_has_a_password(old: str, new: str) -> None:
    (problem,) = lines(old, new)
    assert "s3cret" not in problem and "***@host" in problem


def test_minutes_are_no_millions() -> None:
    assert "5m" in (said := lines("token_budget: 1000", "token_budget: 5m")[0]) and "000" not in said
