"""The tables of the stages `prepare`, `targets` and `weights`, in Prefect's UI and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.views.prefect_artifacts import publish_table
from tasks.views.terminal import print_table
from velocitune_core.contracts import Manifest, StartingWeights, Targets


def show_mixture(manifest: Manifest, initial_domain_weights: Mapping[str, float]) -> None:
    """Show what the mixture consists of. Call it from within a flow, as all of these."""
    rows = mixture_rows(manifest, initial_domain_weights)
    publish_table("mixture", "The mixture, by domain", rows)
    print_table("Mixture", rows)


def show_targets(targets: Targets, initial_losses: Mapping[str, float]) -> None:
    """Show the target losses with their evidence."""
    rows = target_rows(targets, initial_losses)
    publish_table("targets", "Target losses in nats per token, with their evidence", rows)
    print_table("Targets", rows)


def show_weights(found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> None:
    """Show the domain weights that the training starts from."""
    rows = weights_rows(found, initial_domain_weights)
    publish_table("weights", "Domain weights that the training starts from", rows)
    print_table("Weights", rows)


def mixture_rows(manifest: Manifest, initial_domain_weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: documents, tokens, duplicates and initial domain weight."""
    return [
        {
            "domain": name,
            "documents": domain.train.documents,
            "train tokens": domain.train.tokens,
            "held-out tokens": domain.held_out.tokens,
            "duplicates dropped": domain.duplicates,
            "initial weight": round(initial_domain_weights[name], 4),
        }
        for name, domain in manifest.domains.items()
    ]


def target_rows(targets: Targets, initial_losses: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: initial and target loss in nats per token, and the evidence for the target."""
    rows = []
    for name, domain in targets.domains.items():
        evidence = domain.evidence
        interval = evidence.interval if evidence else None
        error = evidence.leave_largest_out_error if evidence else None
        other = evidence.other_law if evidence else None
        rows.append(
            {
                "domain": name,
                "initial": round(initial_losses[name], 4),
                "target": round(domain.target, 4),
                "interval": f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else "",
                "law": evidence.law.kind if evidence else "given by hand",
                "the other law": f"{other.target:.4f}" if other else "",
                "points": len(evidence.tokens) if evidence else 0,
                "left-out error": f"{error:+.2%}" if error is not None else "",
                "flags": ", ".join(domain.flags),
            }
        )
    return rows


def weights_rows(found: StartingWeights, initial_domain_weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row per domain: the weight that the training starts from, and the initial one."""
    how = {"initial": "starts from", "search": "holds"}[found.found_by]
    return [
        {"domain": name, "initial weight": round(initial_domain_weights[name], 4), how: round(weight, 4)}
        for name, weight in found.domain_weights.items()
    ]
