"""No password of an address is shown."""

import pytest

from velocitune_core.config import without_credentials


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
