"""What of a comparison is there before it starts: own targets of labels, plans, and the runs that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.runs.compared import comparison_settings
from tasks.runs.jobs import compared_job
from tasks.runs.own_targets import OwnTargets, finished_own_targets
from tasks.runs.planned import plan_inputs, plan_of
from tasks.runs.steering import planned_job
from tasks.runs.swarm import swarm_jobs
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture, compared_plans, plan_name
from velocitune_core.config import Mixture, Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, Targets
from velocitune_core.model.io import model_digest
from velocitune_core.train.job import TrainJob

UNHASHED = ""  # in place of the hash of a model that is not there


@dataclass(frozen=True)
class Before:
    """A comparison before it starts, with the results that are there.

    Args:
        initial, targets: as measured, or stand-ins, which serve only to make jobs.
        digest: of the model's parameters; UNHASHED if it is not there.
    """

    params: Params
    manifest: Manifest
    initial: InitialLosses
    targets: Targets
    digest: str
    _own: dict[str, OwnTargets | None] = field(default_factory=dict, repr=False)
    _plans: dict[str, StartingWeights | None] = field(default_factory=dict, repr=False)

    def targets_of(self, label: str) -> Targets | None:
        """Return the targets of a label; None if they are its own, and not all of their proxies are finished."""
        if comparison_settings(self.params).runs[label].own_targets is None:
            return self.targets
        if label not in self._own:
            given = (self.params, label, self.manifest, self.initial, self.digest)
            self._own[label] = finished_own_targets(*given)
        own = self._own[label]
        return None if own is None else own.targets

    def swarm(self, mixture: Mixture) -> list[TrainJob]:
        """Return the runs of the first round of a swarm."""
        sibling = None if mixture.swarm.model is None else digest_of(mixture.swarm.model)
        return swarm_jobs(self.params, self.manifest, mixture, self.digest, sibling)

    def plan(self, label: str, seed: int) -> StartingWeights | None:
        """Return the plan that a planned label holds under a seed, if the comparison made it and would make it now."""
        name = plan_name(self.params, label, seed)
        if name not in self._plans:
            self._plans[name] = self._plan_of(name)
        return self._plans[name]

    def job(self, label: str, seed: int) -> TrainJob | None:
        """Return the run of a label as it would start now; None if its targets or its plan are not there yet.

        The search that its strategy may have, and the weights of another label, are not looked for.
        """
        settings = comparison_settings(self.params).runs[label]
        planned = (label, seed) if plan_name(self.params, label, seed) in compared_plans(self.params) else None
        targets = self.targets if planned else self.targets_of(label)
        if targets is None:
            return None
        job = compared_job(self.params, self.manifest, self.initial, targets, label, seed, self.digest)
        if planned is None:
            return job
        plan = self.plan(label, seed)
        return None if plan is None else planned_job(job, plan, settings.options, self.initial)

    def _plan_of(self, name: str) -> StartingWeights | None:
        label, seed = compared_plans(self.params)[name]
        targets, mixture = self.targets_of(label), compared_mixture(self.params, label, seed)
        if targets is None:
            return None
        first = self.swarm(mixture)
        inputs = partial(plan_inputs, self.params, mixture, first, self.manifest, self.initial, targets)
        file = paths.COMPARISON_REPORT / paths.PLANS / f"{name}.json"
        return plan_of(file, comparison_settings(self.params).runs[label].options, inputs)


def digest_of(model: str) -> str:
    """Return the hash of a model's parameters, by which the folders of finished runs are named; UNHASHED without it."""
    return model_digest(Path(model)) if (Path(model) / "config.json").exists() else UNHASHED
