"""Settings that are paths: text that nothing can be called by is refused by field, before any disk is read."""

from __future__ import annotations

import pytest

from velocitune_core.config import ConfigError
from velocitune_core.config.load import parse_params
from velocitune_core.config.yaml_text import parse_yaml
from velocitune_core.files import path_problem

SETTINGS = """
domains: {{code: {{source: {{type: jsonl, path: {0}}}}}, web: {{source: {{type: jsonl, path: web.jsonl}}}}}}
data: {{path: {0}}}
model: {{path: {0}}}
mixture: {{swarm: {{model: {0}}}}}
training: {{optimizer: {{learning_rate: 0.001}}}}
tracking: {{uri: "sqlite:///{1}"}}
"""
FIELDS = {"domains.code.source.path", "data.path", "model.path", "mixture.swarm.model", "tracking.uri"}


@pytest.mark.parametrize(
    ("path", "shown", "problem"),
    [
        ("x" * 300, "xxx...xxx", "a name in it has 300 bytes; give one of at most 255"),
        ("ü" * 128, "üüü...üüü", "a name in it has 256 bytes; give one of at most 255"),
        (r"a\0b", r"a\x00b", "it has the character NUL; remove that"),
        ("d/" * 600 + "x", "d/d...d/x", "it has 1201 bytes; give one of at most 1000"),
    ],
)
def test_a_path_that_nothing_can_have_is_refused_by_field(path: str, shown: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_params(parse_yaml(SETTINGS.format(f'"{path}"', path).encode(), "params.yaml"))
    _, *lines = str(refused.value).splitlines()
    assert {line.strip().partition(":")[0] for line in lines} == FIELDS
    begin, _, end = shown.partition("...")
    for line in lines:
        assert line.endswith(f" cannot be a path: {problem}") and len(line) < 150
        assert begin in line and end in line


def test_the_longest_names_are_taken() -> None:
    path = "/".join(["x" * 255, "ü" * 127, "y" * 200])
    params = parse_params(parse_yaml(SETTINGS.format(path, path).encode(), "params.yaml"))
    assert params.data.path == params.model.path == path


def test_a_pattern_may_be_longer_than_a_name() -> None:
    assert path_problem("part-[" + "a" * 300 + "]*.jsonl") is None
