"""`make serve` names its server in Prefect's active profile, and restores the user's profiles at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.views.serve import PROFILE, ServeError, _active_profile, _check, _running

API = "http://127.0.0.1:4200/api"
MINE = 'active = "mine"\n\n[profiles.mine]\n'


@pytest.fixture
def profiles(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(workspace))
    return workspace / "profiles.toml"


@pytest.mark.parametrize("before", [None, MINE])
def test_profiles_are_restored(profiles: Path, before: str | None) -> None:
    if before is not None:
        profiles.write_text(before)
    with pytest.raises(KeyboardInterrupt), _active_profile(API):
        assert f'active = "{PROFILE}"' in profiles.read_text() and API in profiles.read_text()
        raise KeyboardInterrupt
    assert (profiles.read_text() if profiles.exists() else None) == before


def test_a_profile_that_a_kill_has_left_is_removed(profiles: Path) -> None:
    with _active_profile("http://127.0.0.1:1/api"):
        left = profiles.read_text()
    profiles.write_text(left)
    with _active_profile(API):
        pass
    assert not profiles.exists()


def test_a_server_that_ends_is_named() -> None:
    with _running(("timeit", "-n", "1", "pass")) as process:
        process.wait(30)
        with pytest.raises(ServeError, match=r"MLflow UI ended with status 0; is its port taken\?"):
            _check({"MLflow UI": process})
