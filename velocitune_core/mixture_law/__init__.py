"""Laws of held-out losses over domain weights, fitted to a swarm of runs. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velocitune_core.mixture_law.evidence import Parameter, SetEvidence
    from velocitune_core.mixture_law.law import MixtureLaw, fit_mixture_law
    from velocitune_core.mixture_law.table import MixtureLawError, RunTable, enough_runs

__all__ = [
    "MixtureLaw",
    "MixtureLawError",
    "Parameter",
    "RunTable",
    "SetEvidence",
    "enough_runs",
    "fit_mixture_law",
]
_MODULES = {
    "MixtureLaw": "law",
    "MixtureLawError": "table",
    "Parameter": "evidence",
    "RunTable": "table",
    "SetEvidence": "evidence",
    "enough_runs": "table",
    "fit_mixture_law": "law",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
