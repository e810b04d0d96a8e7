"""What a workspace has before the runs of a folder of jobs."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.stages.base import UNTRAINED, build_untrained, pack_base
from tasks.transfer.steps import Known
from tasks.workspace import paths
from velocitune_core.config import Model, Params
from velocitune_core.contracts import DomainManifest, InitialLosses, Manifest, Targets


def inputs_of_base(params: Params) -> dict[str, DomainManifest]:
    """Build the untrained base, and pack the domains that it is trained on."""
    build_untrained(params)
    return pack_base(params)


def with_untrained_base(params: Params) -> Params:
    """Return settings to pack the mixture under before the base is trained; the tokenizer is the same."""
    return params.model_copy(update={"model": Model(path=str(UNTRAINED))})


def known_here(base: Mapping[str, DomainManifest] | None, *, fits_targets: bool) -> Known:
    """Return what is known here, after the stage `prepare`.

    Args:
        base: the packed domains of a base that is to be trained.
        fits_targets: whether initial losses and targets are to be measured.
    """
    measured = None if fits_targets else (InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS))
    return Known(Manifest.read(paths.MANIFEST), base, measured)
