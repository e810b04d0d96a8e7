"""A file that has no settings in it is refused in one message, with its line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from velocitune_core.config import ConfigError, load_params


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": is empty; restore it, or copy"),
        (b"# a: 1", ": is empty; restore it, or copy"),
        (b"- a", ": holds a list and no settings"),
        (b"one", ": holds a str and no settings"),
        (b"a:1", ": holds no settings; a blank is missing after the colon: write a: 1"),
        (b"a:\n  b:1\n  c: 2", ": line 2: a blank is missing after the colon: write b: 1"),
        (b"a:\n  b: 1\n  c:2\n\n# more\nd: 3", ": line 3: a blank is missing after the colon: write c: 2"),
        (b"- a: 0\n- b:1\n  c: {}", ": line 2: a blank is missing after the colon: write b: 1"),
        (
            b"a:1\nb:2\nc: 3",
            ": line 1: a blank is missing after the colon: write a: 1; line 2: a blank is missing after the colon: ",
        ),
        (b"a: http://b\nhttp://c\nd: 1", ": line 3, character 1: not YAML: could not find expected ':'"),
        (b"domains: {}", ":\n  domains: "),
        (b"domains: [", ": line 1, character 11: not YAML: expected the node content, but found '<stream end>'; close"),
        (b"a: 1\n\tb: 1", ": line 2, character 1: not YAML: found character '\\t' that cannot start any token; indent"),
        (b"a:\n  b: 1\n c: 2", ": line 3, character 2: not YAML: expected <block end>, "),
        (b"a: \\\nb: c: d", ": line 2, character 5: not YAML: mapping values are not allowed here; indent it as "),
        (
            b"a: 1\nb: " + b"[" * 3000,
            ": line 2, character 105: not YAML: mappings or lists inside one another too deep",
        ),
        (b"a: 1\nb: " + b"{a: " * 3000, ": line 2, character 399: not YAML: mappings or lists inside one another too "),
        (b"- " * 3000, ": line 1, character 202: not YAML: mappings or lists inside one another too deeply"),
        ("a: 1\nb: é".encode("latin-1"), ": line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a: é".encode("utf-16"), ": is text in UTF-16; save it as UTF-8"),
        ("a: 1\nb: 2".encode("utf-16-le"), ": line 1: not YAML: character U+0000; remove it, or save the file as "),
        (b"a: !!bool maybe", ": line 1, character 1: not YAML: the value of a tag (!!) does not fit it: "),
    ],
)
def test_a_file_without_settings_is_named_with_line_and_remedy(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_params(path)
    message = str(refused.value)
    assert message.startswith(f"{path}{problem}") and len(message.splitlines()) <= 6


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml: no such file; run from the folder"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match=r": is a folder; move it away"):
        load_params(tmp_path)


def test_a_file_that_may_not_be_read_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read: Permission denied; allow it to be read"):
        load_params(tmp_path / "params.yaml")
