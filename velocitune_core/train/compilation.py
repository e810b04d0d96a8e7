"""What of a training `torch.compile` compiles: on a GPU layers, on a CPU the loss of the whole model, if it pays.

On a GPU layers are compiled one by one: they are alike, so that one compilation serves a model of any depth. On a CPU
the loss is compiled as a whole, which is faster, and only its training steps: losses without gradients, as of held-out
sequences, come from the same uncompiled code in every run and in the evaluation of the initial model. FSDP2 interrupts
compiled code at every layer, so a model that is sharded, or computes in bfloat16, has its layers compiled on a CPU too.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

# Processor seconds of float32 models of 0.5 and 30 M parameters: docs/PERFORMANCE.md, "Training".
SECONDS_SAVED = 2.5e-8  # per token, layer and element of a hidden state: what compiling saves is element-wise work
SECONDS_COLD = 17.0  # to compile for the first time, the C++ compiler included
SECONDS_COLD_PER_LAYER = 4.2
SHARE_WARM = 0.1  # of these, with the code of another run in the cache
MARGIN = 2.0  # that the saving must exceed the cost by: compiling keeps one core busy, steps may use several


@dataclass(frozen=True)
class Work:
    """How often the compiled code of a run would be used."""

    steps: int  # of the whole run, so that a resumed run decides as its first attempt did
    tokens_per_step: int  # over all ranks
    runs_alike: int = 1  # that share the cache of compiled code


@dataclass(frozen=True)
class Compilation:
    """Whether the loss of the whole model is compiled, and why, for the log."""

    whole_loss: bool
    reason: str


def compiles_layers(setting: str, device: torch.device, sharded: bool) -> bool:
    """Return whether to compile layers one by one: on a GPU unless refused, of a sharded model on a CPU on request."""
    if device.type == "cuda":
        return setting != "never"
    return setting == "always" and sharded


def compilation(
    setting: str, device: torch.device, sharded: bool, width: int, layers: int, work: Work | None
) -> Compilation:
    """Decide on the loss of a whole model; the same for every attempt at a run and on every rank.

    Args:
        setting: `execution.compile`.
        width: of the hidden states.
        work: None where it is not known, as in a probe; `auto` does not compile then.
    """
    if compiles_layers(setting, device, sharded):
        return Compilation(False, "layers are compiled")
    if setting != "auto":
        return Compilation(setting == "always", f"execution.compile is {setting}")
    if sharded:
        return Compilation(False, "not compiled: auto compiles no sharded or bfloat16 model on a CPU")
    if work is None:
        return Compilation(False, "not compiled: the number of steps is not known")
    return _if_it_pays(seconds_saved(width, layers, work), seconds_to_compile(layers, work.runs_alike))


def _if_it_pays(saved: float, cost: float) -> Compilation:
    figures = f"it would save about {saved:.0f} s of processor time and cost about {cost:.0f}"
    if saved < MARGIN * cost:
        return Compilation(False, f"not compiled: {figures}")
    if problem := missing_for_cpp():
        return Compilation(False, f"not compiled: {figures}, but there is no {problem}")
    return Compilation(True, f"loss compiled: {figures}")


def seconds_saved(width: int, layers: int, work: Work) -> float:
    """Return the processor seconds that compiled steps of one run save, without those of compiling."""
    return SECONDS_SAVED * work.steps * work.tokens_per_step * layers * width


def seconds_to_compile(layers: int, runs_alike: int) -> float:
    """Return the processor seconds of compiling, as the mean over the runs that share the cache."""
    cold = SECONDS_COLD + SECONDS_COLD_PER_LAYER * layers
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
