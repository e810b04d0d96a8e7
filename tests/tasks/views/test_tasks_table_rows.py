"""Tables: their rows, how they are printed, and a Prefect server that does not take them."""

from __future__ import annotations

import logging
import re

import pytest
import result_samples as samples
from planned_samples import planned

from tasks.views import table_rows
from tasks.views.prefect_artifacts import publish_table
from tasks.views.table_rows import mixture_rows, prediction_rows, show_weights, target_rows, weights_rows
from tasks.views.terminal import print_table
from velocitune_core.contracts import DomainTarget, StartingWeights, Targets


def test_a_row_of_the_mixture_per_domain() -> None:
    weights = {name: row[0] for name, row in samples.SEVEN.items()}
    rows = mixture_rows(samples.manifest(), weights)
    assert [row["domain"] for row in rows] == list(samples.SEVEN)
    assert rows[0] == {
        "domain": "code",
        "documents": 10,
        "train tokens": 501_000,  # 0.334 × 1,500,000
        "held-out tokens": 4096,
        "duplicates dropped": 1,
        "initial weight": 0.334,
    }
    code = samples.manifest().domains["code"].model_copy(update={"left_out": 2})
    manifest = samples.manifest().model_copy(update={"domains": samples.manifest().domains | {"code": code}})
    assert [row["files not read"] for row in mixture_rows(manifest, weights)][:2] == [2, 0]


def test_a_target_is_shown_with_its_evidence() -> None:
    targets = samples.targets()
    rows = {row["domain"]: row for row in target_rows(targets, samples.initial().losses)}
    assert list(rows) == list(samples.SEVEN)
    evidence = targets.domains["code"].evidence
    assert evidence is not None and evidence.interval is not None
    assert (rows["code"]["initial"], rows["code"]["target"]) == (4.9, 3.38)
    assert rows["code"]["points"] == len(evidence.tokens)
    assert rows["code"]["interval"] == "{:.3f} … {:.3f}".format(*evidence.interval)


def test_a_target_given_by_hand_has_no_evidence() -> None:
    targets = Targets(domains={"code": DomainTarget(target=3.0)})
    (row,) = target_rows(targets, {"code": 4.0})
    assert (row["law"], row["points"], row["interval"], row["flags"]) == ("given by hand", 0, "", "")


def test_the_weights_of_a_plan_are_shown_with_their_spread_and_what_is_predicted() -> None:
    static = {"code": 0.6, "law": 0.3, "general": 0.1}
    found = planned(static)
    assert found.planned is not None
    rows = {row["domain"]: row for row in weights_rows(found, static)}
    assert rows["code"].keys() == {"domain", "initial weight", "holds", "over resamples"}
    assert (rows["code"]["initial weight"], rows["code"]["holds"]) == (0.6, found.domain_weights["code"])
    predictions = {row["of"]: row for row in prediction_rows(found.planned)}
    assert predictions.keys() == {"macro", "by_size", *static}
    recommended, even = (float(predictions["macro"][name].replace("−", "-")) for name in ("recommended", "T = 1.5"))
    assert recommended < even < 0
    assert predictions["code"]["recommended"].startswith("+") and " … " in predictions["code"]["interval"]
    assert all(re.fullmatch(r"[+−]?\d+\.\d{3} … [+−]?\d+\.\d{3}", row["interval"]) for row in predictions.values())
    assert any(row["interval"].startswith("−") for row in predictions.values())
    assert all(re.fullmatch(r"\d\.\d{3} … \d\.\d{3}", row["over resamples"]) for row in rows.values())


@pytest.mark.parametrize(("in_pipeline", "shown"), [(True, "recommended holds code 60.0 → 45.0 %"), (False, "0.45")])
def test_the_weights_of_a_search_are_a_line_of_the_pipeline_and_a_table_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    in_pipeline: bool,
    shown: str,
) -> None:
    caplog.set_level(logging.INFO, "tasks.views.table_rows")
    monkeypatch.setattr(table_rows, "publish_table", lambda *_: None)
    monkeypatch.setattr(table_rows, "is_stage_of_pipeline", lambda: in_pipeline)
    found = {"code": 0.45, "law": 0.4, "general": 0.15}
    weights = StartingWeights(strategy="recommended", found_by="search", domain_weights=found)
    show_weights(weights, {"code": 0.6, "law": 0.3, "general": 0.1})
    printed = capsys.readouterr().err
    assert shown in printed and len(printed.splitlines()) == (1 if in_pipeline else 6)
    assert [shown in each for each in caplog.messages] == [True] * in_pipeline  # in Prefect's UI, beside its table


def test_a_table_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Mixture", [{"domain": "code", "tokens": 1_234_567, "note": "x" * 60}])
    captured = capsys.readouterr()
    assert captured.out == ""
    for text in ("Mixture", "domain", "1,234,567", "x" * 60):
        assert text in captured.err


@pytest.mark.timeout(60)
def test_a_prefect_server_out_of_reach_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        caplog.at_level(logging.WARNING, logger="tasks.views.prefect_artifacts"),
    ):
        publish_table("mixture", "The mixture", [{"domain": "code"}])
    (message,) = [each.getMessage() for each in caplog.records if each.name == "tasks.views.prefect_artifacts"]
    assert message.startswith("Prefect did not take the table mixture")
