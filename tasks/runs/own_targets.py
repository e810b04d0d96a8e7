"""Targets that a label of the comparison has for itself: fitted to other proxies, or by another law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.runs.budget import token_budget
from tasks.runs.jobs import proxy_jobs, proxy_name
from tasks.runs.run_folder import finished_result
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, ProxyResult, Targets
from velocitune_core.targets import fit_targets
from velocitune_core.train.job import TrainJob


@dataclass(frozen=True)
class OwnTargets:
    """Targets of one label, and the proxies that they were fitted to."""

    targets: Targets
    proxies: list[ProxyResult]

    @property
    def tokens(self) -> int:
        """Tokens that all of these proxies were trained on."""
        return sum(proxy.tokens for proxy in self.proxies)

    @property
    def seconds(self) -> float:
        """Wall time of all of them together."""
        return sum(proxy.seconds for proxy in self.proxies)


def labels_with_own_targets(params: Params) -> list[str]:
    """Return the labels of the comparison whose targets are not the pipeline's."""
    runs = params.compare.runs if params.compare is not None else {}
    return [label for label, run in runs.items() if run.own_targets is not None]


def own_proxy_jobs(params: Params, label: str, manifest: Manifest, model_sha256: str | None = None) -> list[TrainJob]:
    """Return the proxies of a label that the stage `proxies` does not make; those of `proxies.fractions` are shared."""
    jobs = proxy_jobs(_under(params, label), manifest, model_sha256)
    return [job for job in jobs if job.fraction not in params.proxies.fractions]


def fit_own_targets(
    params: Params,
    label: str,
    manifest: Manifest,
    initial: InitialLosses,
    proxies: Sequence[ProxyResult],
    *,
    intervals: bool = True,
) -> OwnTargets:
    """Return the targets of a label.

    Args:
        proxies: those of the stage `proxies`, and the label's own.
        intervals: whether they get intervals, which take most of the time.

    Raises TargetError for proxies that give no law.
    """
    own = _under(params, label)
    names = [proxy_name(fraction, seed) for seed in own.proxies.seeds for fraction in own.proxies.fractions]
    there = {proxy.name: proxy for proxy in proxies}
    used = [there[name] for name in names if name in there]
    settings = own.targets if intervals else own.targets.model_copy(update={"bootstrap": 0})
    missing = [name for name in names if name not in there]
    return OwnTargets(fit_targets(initial, used, token_budget(params, manifest), settings, missing), used)


def finished_own_targets(
    params: Params, label: str, manifest: Manifest, initial: InitialLosses, model_sha256: str | None = None
) -> OwnTargets | None:
    """Return the targets of a label, without intervals; None unless all of its proxies are finished.

    Raises TargetError for proxies that give no law.
    """
    proxies = []
    for job in proxy_jobs(_under(params, label), manifest, model_sha256):
        if (result := finished_result(job)) is None:
            return None
        proxies.append(ProxyResult.of(result, job.fraction, job.training.seed))
    return fit_own_targets(params, label, manifest, initial, proxies, intervals=False)


def _under(params: Params, label: str) -> Params:
    """Return the settings under which the targets of a label are made."""
    own = params.compare.runs[label].own_targets if params.compare is not None else None
    assert own is not None, label
    fractions = params.proxies.fractions if own.fractions is None else own.fractions
    changed = {key: value for key in ("points", "law") if (value := getattr(own, key)) is not None}
    return params.model_copy(
        update={
            "proxies": params.proxies.model_copy(update={"fractions": fractions}),
            "targets": params.targets.model_copy(update=changed),
        }
    )
