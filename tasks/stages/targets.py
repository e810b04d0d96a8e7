"""Target losses from the proxies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from prefect import task

from tasks.runs.budget import token_budget
from tasks.runs.resolved_precision import check_measured_in
from tasks.stages.proxies import HOW_TO_RETRY, missing_proxies, read_proxies
from tasks.views.terminal import progress
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, Targets
from velocitune_core.targets import fit_targets

logger = logging.getLogger(__name__)
FEW_DOMAINS = 32  # at most: their laws are fitted before other processes would have started
LAWS_PER_CALL = 8  # of a process
T = TypeVar("T")
R = TypeVar("R")


@task(name="fit targets")
def write_targets(params: Params) -> Targets:
    """Fit a law per domain, write results/targets.json, and log a warning that names the flagged targets.

    Raises ConfigError for losses that were measured in another precision than the run's.
    """
    manifest, initial = Manifest.read(paths.MANIFEST), InitialLosses.read(paths.INITIAL)
    proxies = read_proxies()
    measured = {paths.PROXIES / f"{proxy.name}.json": proxy.precision for proxy in proxies}
    check_measured_in(params.training, {paths.INITIAL: initial.precision, **measured})
    missing = missing_proxies(params.proxies, proxies)
    budget, map_domains = token_budget(params, manifest), on_all_cores if len(initial.losses) > FEW_DOMAINS else map
    targets = fit_targets(initial, proxies, budget, params.targets, missing, map_domains)
    targets.write(paths.TARGETS)
    if missing:
        logger.warning("targets lack the proxies %s; %s", ", ".join(missing), HOW_TO_RETRY)
    if flagged := {name: domain.flags for name, domain in targets.domains.items() if domain.flags}:
        named = "; ".join(f"{name} ({', '.join(flags)})" for name, flags in flagged.items())
        logger.warning("targets with flags: %s", named.replace("_", " "))
    return targets


def on_all_cores(fit: Callable[[T], R], domains: Iterable[T]) -> Iterator[R]:
    """Like `map`, in a process per core, with a progress bar."""
    waiting = list(domains)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:  # a fork would copy Prefect's threads
        fitted = pool.map(fit, waiting, chunksize=LAWS_PER_CALL)
        yield from progress(fitted, "targets", "law", total=len(waiting))
