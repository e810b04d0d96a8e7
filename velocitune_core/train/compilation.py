"""What of a training `torch.compile` compiles: on a GPU layers, on a CPU the loss of the whole model, if it pays.

On a GPU layers are compiled one by one: they are alike, so that one compilation serves a model of any depth. On a CPU
the loss is compiled as a whole, which is faster. FSDP2 interrupts compiled code at every layer, so a model that is
sharded, or computes in bfloat16, has its layers compiled on a CPU too. There, training steps alone are compiled: losses
without gradients, as of held-out sequences, come from the same uncompiled code in every run and in the evaluation of
the initial model.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from velocitune_core.train.precision import has_bfloat16_units

SHARE_WARM = 0.1  # of what compiling costs, with the code of another run in the cache
MARGIN = 2.0  # that the saving must exceed the cost by: compiling keeps one core busy, steps may use several


@dataclass(frozen=True)
class Figures:
    """Processor seconds of models of 0.5 and 30 M parameters on a CPU: docs/PERFORMANCE.md, "Training"."""

    saved: float  # per token, layer and element of a hidden state: what compiling saves is element-wise work
    cold: float  # to compile for the first time, the C++ compiler included
    cold_per_layer: float


WHOLE_LOSS = Figures(saved=2.5e-8, cold=17.0, cold_per_layer=4.2)  # in float32
LAYERS = Figures(saved=3e-8, cold=20.0, cold_per_layer=0.0)  # in bfloat16, on a processor with units for it


@dataclass(frozen=True)
class Work:
    """How often the compiled code of a run would be used."""

    steps: int  # of the whole run, so that a resumed run decides as its first attempt did
    tokens_per_step: int  # over all ranks
    runs_alike: int = 1  # that share the cache of compiled code


@dataclass(frozen=True)
class Compilation:
    """What is compiled, and why, for the log."""

    reason: str
    whole_loss: bool = False
    layers: bool = False


@dataclass(frozen=True)
class Place:
    """Where a model is trained."""

    device: torch.device
    ranks: int = 1
    bfloat16: bool = False  # matrix products

    @property
    def compiles_layers(self) -> bool:
        """Whether it is layers that would be compiled, not the whole loss."""
        return self.device.type == "cuda" or self.bfloat16 or self.ranks > 1


def compilation(setting: str, place: Place, width: int, layers: int, work: Work | None) -> Compilation:
    """Decide what to compile; the same for every attempt at a run and on every rank.

    Args:
        setting: `execution.compile`.
        width: of the hidden states.
        work: None where it is not known, as in a probe; `auto` does not compile on a CPU then.
    """
    on_layers = place.compiles_layers
    if setting == "always" or (setting == "auto" and place.device.type == "cuda"):
        reason = "layers are compiled" if on_layers else "execution.compile is always"
        return Compilation(reason, whole_loss=not on_layers, layers=on_layers)
    if setting == "never":
        return Compilation("execution.compile is never")
    if place.ranks > 1:
        return Compilation("not compiled: auto compiles no model of several processes on a CPU")
    if place.bfloat16 and (torch.get_num_threads() > 1 or not has_bfloat16_units()):  # slower: docs/PERFORMANCE.md
        return Compilation("not compiled: bfloat16 gains by it on one thread of a processor with units for it")
    if work is None:
        return Compilation("not compiled: the number of steps is not known")
    return _if_it_pays(LAYERS if on_layers else WHOLE_LOSS, width, layers, work, on_layers)


def _if_it_pays(figures: Figures, width: int, layers: int, work: Work, on_layers: bool) -> Compilation:
    saved = seconds_saved(figures, width, layers, work)
    cost = seconds_to_compile(figures, layers, work.runs_alike)
    text = f"it would save about {saved:.0f} s of processor time and cost about {cost:.0f}"
    if saved < MARGIN * cost:
        return Compilation(f"not compiled: {text}")
    if problem := missing_for_cpp():
        return Compilation(f"not compiled: {text}, but there is no {problem}")
    what = "layers" if on_layers else "loss"
    return Compilation(f"{what} compiled: {text}", whole_loss=not on_layers, layers=on_layers)


def seconds_saved(figures: Figures, width: int, layers: int, work: Work) -> float:
    """Return the processor seconds that compiled steps of one run save, without those of compiling."""
    return figures.saved * work.steps * work.tokens_per_step * layers * width


def seconds_to_compile(figures: Figures, layers: int, runs_alike: int) -> float:
    """Return the processor seconds of compiling, as the mean over the runs that share the cache."""
    cold = figures.cold + figures.cold_per_layer * layers
    return cold * (SHARE_WARM + (1 - SHARE_WARM) / runs_alike)


def missing_for_cpp() -> str | None:
    """Return what of a C++ compiler this machine lacks: torch writes and compiles C++ for a CPU."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return "C++ compiler"
    headers = Path(sysconfig.get_path("include"))
    return None if (headers / "Python.h").exists() else f"Python.h in {headers}"


def compiled_loss(loss: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a loss that is compiled at its first call; where that fails, torch warns and goes on without."""
    torch._dynamo.config.suppress_errors = True
    return torch.compile(loss)


def compile_layers(layers: Iterable[nn.Module], device: torch.device) -> None:
    """Have layers compiled at their first call, one by one: they are alike, so one compilation serves all.

    Where that fails on a CPU, torch warns and goes on without.
    """
    if device.type == "cpu":
        torch._dynamo.config.suppress_errors = True
    for layer in layers:
        layer.compile()


def uncompiled(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which compiled modules run as they were written: on a CPU, so that losses are comparable."""
    return torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()
