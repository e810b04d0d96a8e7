"""Choose which sequence of which domain fills each slot of each step."""

from velocitune_core.mixture.limits import MixtureError, domain_limits, initial_domain_weights
from velocitune_core.mixture.permutation import permute
from velocitune_core.mixture.sampler import DomainSampler

__all__ = ["DomainSampler", "MixtureError", "domain_limits", "initial_domain_weights", "permute"]
