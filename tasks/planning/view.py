"""A plan on the terminal, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from tasks.planning.build import Footprint, Plan
from tasks.views.terminal import console_of
from velocitune_core.plan.cost import Calibration, Cost, flops_per_token
from velocitune_core.plan.memory import SPARE, Memory, Remedy
from velocitune_core.style.text import counted, duration, listed, tokens_text

WIDTH = 100  # characters, without a terminal
PARTS = (
    "parameters",
    "gradients",
    "moments",
    "reference",
    "gathered",
    "cast_parameters",
    "activations",
    "logits",
    "evaluation",
)


def as_json(plan: Plan) -> str:
    """Return all of a plan as JSON: tokens, steps, FLOPs, seconds, bytes."""
    tree: dict[str, Any] = asdict(plan)
    for shown, each in zip(tree["footprints"], plan.footprints, strict=True):
        shown["memory"]["peak"] = each.memory.peak
    return json.dumps(tree, indent=2)


def print_plan(plan: Plan) -> None:
    """Print cost by stage, memory per device, disk, and what was assumed; narrower tables in a narrow terminal."""
    console = console_of(sys.stdout)
    console.width = console.width if console.is_terminal else WIDTH
    narrow = console.width < WIDTH
    console.print(_stages(plan, narrow))
    console.print(_explanation(plan))
    console.print(_memory(plan.footprints, narrow))
    for footprint in plan.footprints:
        for line in _fit_lines(footprint):
            console.print(line)
    console.print(_beside_tensors(plan))
    disk = plan.disk
    parts = " + ".join(
        f"{name} {size_text(count)}"
        for name, count in (("packed tokens", disk.packed), ("checkpoints", disk.checkpoints), ("models", disk.models))
    )
    console.print(f"disk: {size_text(disk.total)} = {parts}; DVC's cache holds packed tokens and models a second time")
    console.print(f"documents: {plan.documents}")
    for line in plan.assumptions:
        console.print(f"note: {line}")


def _stages(plan: Plan, narrow: bool) -> Table:
    shape = plan.shape
    table = _table(
        narrow, title=f"Plan: {shape.parameters:,} parameters, {counted(shape.layers, 'layer')}", title_justify="left"
    )
    for column in ("stage", "runs", "tokens", "steps", "FLOPs", "time", "of FLOPs"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, price in zip(plan.stages, plan.prices, strict=True):
        count = sum(run.steps > 0 for run in stage.runs)
        done = f"{stage.finished} done of " if stage.finished else ""
        table.add_row(*_row(stage.name, f"{done}{count:,}", price, plan.total, narrow))
    table.add_section()
    runs = sum(run.steps > 0 for stage in plan.stages for run in stage.runs)
    table.add_row(*_row("total", f"{runs:,}", plan.total, plan.total, narrow))
    return table


def _table(narrow: bool, **options: Any) -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=0, collapse_padding=True, **options) if narrow else Table(**options)


def _row(name: str, runs: str, price: Cost, total: Cost, narrow: bool) -> Iterable[str]:
    return (
        name,
        runs,
        tokens_text(price.tokens) if narrow else f"{price.tokens:,}",
        f"{price.steps:,}",
        f"{price.flops:.2e}",
        "–" if price.seconds is None else duration(price.seconds, rough=True),
        f"{price.flops / total.flops:.1%}" if total.flops else "–",
    )


def _beside_tensors(plan: Plan) -> str:
    """Return what memory is taken beside the tensors of the device."""
    measured = any(each.resident for each in plan.probes.values())
    how = "measured here" if measured else "assumed: not measured here"
    parts = [
        f"{each.name}: {size_text(each.resident)} resident per process ({how}), with its libraries, the heap and the "
        f"copy of {size_text(each.memory.copy)} that is written as checkpoint"
        if each.resident is not None
        else f"{each.name}: {size_text(each.memory.copy)} of host memory per process for the checkpoint being written"
        for each in plan.footprints
    ]
    return "memory per device counts tensors. " + "; ".join(parts)


def _explanation(plan: Plan) -> str:
    """Return a sentence on how the table was computed, and what it leaves out."""
    total, length = plan.total, plan.stages[0].runs[0].sequence_length
    parts = [f"evaluation is {total.evaluation_flops / total.flops:.1%} of the FLOPs"] if total.flops else []
    recomputes = plan.stages[-1].runs[0].recomputes if plan.stages[-1].runs else False
    how = "as counted in a probe" if plan.shape.measured != Calibration() else "6·N + 12·L·H·Q·T"
    parts.append(
        f"a training token costs {flops_per_token(plan.shape, length, recomputes=recomputes):.3g} FLOPs ({how})"
    )
    if plan.finished:
        parts.append(f"left out of compare, as they are finished: {counted(plan.finished, 'run')}")
    if done := [f"{stage.finished} of {stage.name}" for stage in plan.stages if stage.finished]:
        parts.append(f"in the table, though they are done and not repeated: {listed(done)}")
    for name, probed in plan.probes.items():
        if probed.speed is None:
            continue
        parts.append(
            f"probe of {name}: {probed.step_seconds:.3g} s per step ({probed.steps} timed, {probed.device}, "
            f"threads {probed.threads}{f', {probed.copies} at once' if probed.copies > 1 else ''}), "
            f"{probed.speed.start:.1f} s to start"
        )
    if total.seconds is not None:
        parts.append(f"the times leave out {listed(plan.left_out)}")
    return "; ".join(parts)


def _memory(footprints: Sequence[Footprint], narrow: bool) -> Table:
    """Return the table of memory, a column per kind of run; parts that are zero in each have no row."""
    table = _table(narrow)
    table.add_column("memory per device")
    for each in footprints:
        table.add_column(_name(each), justify="right")
    for part in [part for part in PARTS if any(getattr(each.memory, part) for each in footprints)]:
        table.add_row(part.replace("_", " "), *(size_text(getattr(each.memory, part)) for each in footprints))
    table.add_section()
    table.add_row("peak", *(f"{size_text(each.memory.peak)} {_moment(each.memory)}" for each in footprints))
    return table


def _name(footprint: Footprint) -> str:
    setting = footprint.setting
    lines = [
        footprint.name,
        counted(setting.processes, "process"),
        f"micro-batch {setting.micro_batch_sequences} × {setting.sequence_length}",
        "bfloat16" if setting.bfloat16 else "float32",
        *(["checkpointing"] if setting.activation_checkpointing else []),
    ]
    return "\n".join(lines)


def _moment(memory: Memory) -> str:
    """Return when the peak is reached."""
    if memory.peak == memory.loading:
        return "while loading"
    return "during evaluation" if memory.peak_in_evaluation else "during a step"


def _fit_lines(footprint: Footprint) -> list[str]:
    fit = footprint.fit
    if fit is None:
        return []
    if fit.fits:
        return [f"  fits: {footprint.name} leaves at least {SPARE:.0%} of the device free"]
    answer = (
        "Changes that make it fit, the cheapest first:" if fit.remedies else "No setting of params.yaml makes it fit."
    )
    lines = [f"  does not fit: {footprint.name} (with {SPARE:.0%} kept free). {answer}"]
    for remedy in fit.remedies:
        changes = ", ".join(f"{key}: {str(value).lower()}" for key, value in _keys(footprint, remedy))
        lines.append(f"    {changes}   peak {size_text(remedy.memory.peak)}")
    return lines


def _keys(footprint: Footprint, remedy: Remedy) -> Iterator[tuple[str, int | bool]]:
    """Yield what to change in params.yaml; proxies have a number of processes of their own."""
    for key, value in remedy.changes.items():
        own = footprint.name == "proxies" and key == "resources.processes"
        yield ("proxies.processes" if own else key), value


def size_text(count: float) -> str:
    """Return bytes in a readable unit, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit in {"B", "kB"} else f"{count:,.1f} {unit}"
