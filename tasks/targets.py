"""Targets from proxies, and what to make of them."""

from __future__ import annotations

import logging

from prefect import task

from tasks import paths
from tasks.jobs import token_budget
from tasks.proxies import HOW_TO_RETRY, missing_proxies, read_proxies
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, Targets
from velocitune_core.targets import fit_targets

logger = logging.getLogger(__name__)


@task(name="fit targets")
def write_targets(params: Params) -> Targets:
    """results/targets.json: a law per domain, its target, its flags; flagged ones are named in the log."""
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    proxies = read_proxies()
    missing = missing_proxies(params.proxies, proxies)
    targets = fit_targets(initial, proxies, token_budget(params, manifest), params.targets, missing)
    targets.write(paths.TARGETS)
    if missing:
        logger.warning("targets lack the proxies %s; %s", ", ".join(missing), HOW_TO_RETRY)
    for name, domain in targets.domains.items():
        if domain.flags:
            logger.warning("target of %s (%.3f nats) is flagged: %s", name, domain.target, ", ".join(domain.flags))
    return targets
