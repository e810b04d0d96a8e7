"""Tables over tokens, for `dvc plots`."""

from __future__ import annotations

from dataclasses import replace

import result_samples as samples

from velocitune_core.report.lines import lines_over_tokens


def test_weights_last_to_the_end_and_losses_begin_with_the_base_model() -> None:
    report = samples.report_data()
    lines = lines_over_tokens(report)
    weights = [each for each in lines["domain_weights"] if each["domain"] == "code"]
    assert weights[0]["tokens"] == 0 and weights[-1]["tokens"] == report.train.tokens
    assert weights[-1]["weight"] == report.train.domain_weights[-1].weights["code"]
    losses = [each for each in lines["held_out_losses"] if each["domain"] == "code"]
    assert (losses[0]["tokens"], losses[0]["loss"]) == (0, report.initial.losses["code"])
    assert losses[-1]["loss"] == report.train.final["code"]
    assert len(losses) == len({each["tokens"] for each in losses})
    assert {each["domain"] for each in lines["held_out_losses"]} == set(report.manifest.domains)


def test_a_run_without_updates_has_a_flat_line() -> None:
    report = samples.report_data()
    static = report.train.model_copy(update={"domain_weights": report.train.domain_weights[:1]})
    found = lines_over_tokens(replace(report, train=static))["domain_weights"]
    assert len(found) == 2 * len(report.manifest.domains)
