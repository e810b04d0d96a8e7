"""No password of an address is shown."""

import pytest

from velocitune_core.config import (
    ConfigError,
    has_password,
    parse_params,
    shown_command,
    without_credentials,
    without_user,
)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://ann:pa55@mlflow.example.org:5000/a", "https://***@mlflow.example.org:5000/a"),
        ("postgresql://ann:p/a@s@db/mlflow", "postgresql://***@db/mlflow"),
        ("https://token@example.org", "https://***@example.org"),
        ("https://example.org/?a=1&access_token=abc&b=2", "https://example.org/?a=1&access_token=***&b=2"),
        ("s3://bucket/x?X-Amz-Signature=12ab", "s3://bucket/x?X-Amz-Signature=***"),
        ("cannot reach https://a:b@c/d: refused", "cannot reach https://***@c/d: refused"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("s3://bucket/user@x/path", "s3://bucket/user@x/path"),
        ("https://host:5000/path@version", "https://host:5000/path@version"),
        ("AccountName=a;AccountKey=abc==;Suffix=net", "AccountName=a;AccountKey=***;Suffix=net"),
        ("https://example.org/a?page=2", "https://example.org/a?page=2"),
    ],
)
def test_credentials_are_left_out(given: str, shown: str) -> None:
    assert without_credentials(given) == shown
    assert without_credentials({"a": [given, 1, None]}) == {"a": [shown, 1, None]}


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("tracking.uri=http://ann:pa55@h:5000", "tracking.uri=http://***@h:5000"),
        ("--set=tracking.uri=postgresql://ann:p a'55@db/x", "--set=tracking.uri=postgresql://***@db/x"),
        ("tracking.uri=http://h/?token=pa55", "tracking.uri=http://h/?token=***"),
        ("strategy.name=static", "strategy.name=static"),
    ],
)
def test_a_command_line_is_shown_without_them(word: str, shown: str) -> None:
    assert shown_command(["python", "-m", "flows.pipeline", "-S", word]) == f"python -m flows.pipeline -S {shown}"


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("http://ann:pa55@h:5000", True),
        ({"uri": "postgresql://ann:pa55@db/x"}, True),
        ("http://h/?access_token=pa55", True),
        ("postgresql://ann@db/x", False),
        ("http://h:5000/path@version", False),
        (0.5, False),
    ],
)
def test_a_value_with_a_password_is_found(value: object, secret: bool) -> None:
    assert has_password(value) == secret


def test_an_address_for_a_browser_has_no_user() -> None:
    assert without_user("http://ann:pa55@h:5000/a?token=b") == "http://h:5000/a?token=***"
    assert without_user("http://h:5000/a") == "http://h:5000/a"


def test_a_refused_value_is_shown_without_them() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_params({"tracking": "http://ann:pa55@h:5000", "training": {"seed": "http://ann:pa55@h"}})
    assert "pa55" not in str(refused.value) and "'http://***@h:5000'" in str(refused.value)
