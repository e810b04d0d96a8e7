"""A swarm that is trained in rounds: what is known so far, and the runs of the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.runs.swarm import Finished, main_flops, objective_of, of_the_law, swarm_name, swarm_runs, under_weights
from tasks.workspace.planned_settings import first_size, swarm_size
from velocitune_core.config import Mixture, Params
from velocitune_core.config import Swarm as SwarmSettings
from velocitune_core.contracts import InitialLosses, Manifest, SwarmRound, Targets
from velocitune_core.planned_weights import Decision, decide_round
from velocitune_core.train.job import TrainJob


@dataclass(frozen=True)
class Swarm:
    """The runs of a swarm, between two rounds."""

    mixture: Mixture
    waiting: Sequence[TrainJob]  # of the next round; none: the swarm has ended
    started: Sequence[TrainJob] = ()  # of all rounds before it, also those that failed
    finished: Finished = ()
    rounds: Sequence[SwarmRound] = ()  # without a setting of rounds, none
    first: Sequence[TrainJob] = ()  # of the started runs, those of the first round

    @property
    def missing(self) -> list[str]:
        """Names of the runs that ended without a result."""
        there = {job.name for job, _ in self.finished}
        return [job.name for job in self.started if job.name not in there]

    def after_round(self, finished: Finished) -> Swarm:
        """Return the swarm after the waiting runs have ended."""
        started, finished = [*self.started, *self.waiting], [*self.finished, *finished]
        return replace(self, waiting=(), started=started, finished=finished, first=self.first or self.waiting)

    def going_on(self, decision: Decision, params: Params, manifest: Manifest) -> Swarm:
        """Return the swarm with the runs that were decided on, one per fraction and mixture; seeds take turns."""
        number, jobs = len(self.rounds) + 2, []
        settings, started = self.mixture.swarm, of_the_law(self.started)
        before = sum(each.further for each in self.rounds)
        for each, weights in enumerate(decision.further):
            seed = settings.seeds[(before + each) % len(settings.seeds)]
            for fraction in settings.fractions:
                like = next(job for job in reversed(started) if (job.fraction, job.training.seed) == (fraction, seed))
                job = like.model_copy(update={"name": _name(settings, fraction, seed, number, each)})
                jobs.append(under_weights(job, weights, fraction, params, manifest))
        return replace(self, waiting=jobs, rounds=[*self.rounds, decision.made])


def further_names(swarm: SwarmSettings, domains: int) -> set[str]:
    """Return the names that runs of further rounds may have: their weights follow from the results before them."""
    if (rounds := swarm.rounds) is None:
        return set()
    most = (swarm_size(swarm, domains) - first_size(swarm, domains)) * len(swarm.seeds)
    return {
        _name(swarm, fraction, seed, number, each)
        for number in range(2, 2 + most)
        for each in range(rounds.runs)
        for fraction in swarm.fractions
        for seed in swarm.seeds
    }


def _name(swarm: SwarmSettings, fraction: float, seed: int, number: int, each: int) -> str:
    return swarm_name(swarm.model, fraction, seed, f"round-{number}-{each:02d}")


def decided(swarm: Swarm, params: Params, manifest: Manifest, initial: InitialLosses, targets: Targets) -> Decision:
    """Return what the runs so far say, and the weights of the next round. Raises what `decide_round` raises."""
    settings, rounds = swarm.mixture.swarm, swarm.mixture.swarm.rounds
    assert rounds is not None
    tried = [job for job in of_the_law(swarm.started) if job.fraction == settings.fractions[-1]]
    most = swarm_size(settings, len(manifest.domains)) * len(settings.seeds)
    return decide_round(
        swarm_runs(swarm.finished, manifest),
        objective_of(params, swarm.mixture, manifest, initial, targets),
        targets,
        law=settings.law,
        bootstrap=settings.bootstrap,
        further=min(rounds.runs, most - len(tried)),
        tolerance=rounds.tolerance,
        min_share=settings.min_share,
        tried=[job.initial_domain_weights for job in tried],
        main_flops=main_flops(params, manifest),
        sibling=settings.model is not None,
    )
