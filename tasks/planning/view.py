"""A plan for people, and the same for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.planning.build import Footprint, Plan
from velocitune_core.plan.cost import Cost, flops_per_token
from velocitune_core.plan.memory import HEAP, SPARE, Memory, Remedy

WIDTH = 120  # where there is no terminal to ask
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
    """All of a plan: tokens, steps, operations, seconds, bytes."""
    tree: dict[str, Any] = asdict(plan)
    for shown, each in zip(tree["footprints"], plan.footprints, strict=True):
        shown["memory"]["peak"] = each.memory.peak
    return json.dumps(tree, indent=2)


def print_plan(plan: Plan) -> None:
    """Cost by stage, memory per device, disk, and what was assumed."""
    console = Console(highlight=False)
    console.width = console.width if console.is_terminal else WIDTH
    console.print(_stages(plan))
    console.print(_reading(plan), soft_wrap=True)
    console.print(_memory(plan.footprints))
    for footprint in plan.footprints:
        for line in _fit_lines(footprint):
            console.print(line, soft_wrap=True)
    console.print(
        f"memory is of tensors; a CPU process holds up to {HEAP} times as much, and its libraries", soft_wrap=True
    )
    disk = plan.disk
    console.print(
        f"disk: {size(disk.total)} = packed tokens {size(disk.packed)} + checkpoints {size(disk.checkpoints)} "
        f"+ models {size(disk.models)}; DVC's cache keeps packed tokens and models once more",
        soft_wrap=True,
    )
    if plan.notes:
        console.print("assumed: " + "; ".join(plan.notes), soft_wrap=True)


def _stages(plan: Plan) -> Table:
    shape = plan.shape
    table = Table(title=f"Plan: {shape.parameters:,} parameters, {shape.layers} layers", title_justify="left")
    for column in ("stage", "trainings", "tokens", "steps", "FLOPs", "time", "of FLOPs"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, price in zip(plan.stages, plan.prices, strict=True):
        table.add_row(*_row(stage.name, sum(run.steps > 0 for run in stage.runs), price, plan.total))
    table.add_section()
    trainings = sum(run.steps > 0 for stage in plan.stages for run in stage.runs)
    table.add_row(*_row("total", trainings, plan.total, plan.total))
    return table


def _row(name: str, trainings: int, price: Cost, whole: Cost) -> Iterable[str]:
    flops = f"{price.flops:.2e}"
    return (
        name,
        f"{trainings:,}",
        f"{price.tokens:,}",
        f"{price.steps:,}",
        flops,
        "–" if price.seconds is None else duration(price.seconds),
        f"{price.flops / whole.flops:.1%}" if whole.flops else "–",
    )


def _reading(plan: Plan) -> str:
    """What the table rests on, and the shares that one asks for."""
    whole, length = plan.total, plan.stages[0].runs[0].sequence_length
    parts = [f"evaluation is {whole.evaluation_flops / whole.flops:.1%} of the FLOPs"] if whole.flops else []
    parts.append(f"a token of training costs {flops_per_token(plan.shape, length):.3g} FLOPs (6·N + 12·L·H·Q·T)")
    if plan.finished:
        parts.append(f"{plan.finished} trainings are there already and not counted")
    for name, probed in plan.probes.items():
        parts.append(
            f"probe of {name}: {probed.step_seconds:.3g} s a step ({probed.steps} timed, {probed.device}, "
            f"threads {probed.threads}{f', {probed.copies} at once' if probed.copies > 1 else ''}), "
            f"{probed.speed.start:.1f} s to start"
        )
    parts.append("not timed: corpus, prepare, targets, report, and the start of services")
    return "; ".join(parts)


def _memory(footprints: Sequence[Footprint]) -> Table:
    """Parts of which all are zero have no column."""
    shown = [part for part in PARTS if any(getattr(each.memory, part) for each in footprints)]
    table = Table("memory per device", "peak", title_justify="left")
    for part in shown:
        table.add_column(part.replace("_", " "), justify="right")
    for each in footprints:
        sizes = (size(getattr(each.memory, part)) for part in shown)
        table.add_row(_name(each), f"{size(each.memory.peak)} {_moment(each.memory)}", *sizes)
    return table


def _name(footprint: Footprint) -> str:
    setting = footprint.setting
    lines = [
        footprint.name,
        f"{setting.processes} process{'es' if setting.processes > 1 else ''}",
        f"micro-batch {setting.micro_batch_sequences} × {setting.sequence_length}",
        "bfloat16" if setting.bfloat16 else "float32",
        *(["checkpointing"] if setting.activation_checkpointing else []),
    ]
    return "\n".join(lines)


def _moment(memory: Memory) -> str:
    if memory.peak == memory.loading:
        return "in loading"
    return "in evaluation" if memory.peak_in_evaluation else "in a step"


def _fit_lines(footprint: Footprint) -> list[str]:
    fit = footprint.fit
    if fit is None:
        return []
    if fit.fits:
        return [f"  fits: {footprint.name} leaves {SPARE:.0%} or more of the device free"]
    lines = [f"  does not fit: {footprint.name} (with {SPARE:.0%} kept free). What would, the cheapest first:"]
    for remedy in fit.remedies:
        changes = ", ".join(f"{key}: {str(value).lower()}" for key, value in _keys(footprint, remedy))
        lines.append(f"    {changes}   peak {size(remedy.memory.peak)}")
    if not fit.remedies:
        lines[0] = lines[0].replace(" What would, the cheapest first:", " No setting of params.yaml makes it fit.")
    return lines


def _keys(footprint: Footprint, remedy: Remedy) -> Iterator[tuple[str, int | bool]]:
    """What to change in params.yaml; proxies have processes of their own."""
    for key, value in remedy.changes.items():
        own = footprint.name == "proxies" and key == "resources.processes"
        yield ("proxies.processes" if own else key), value


def size(count: float) -> str:
    """Bytes as people read them, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit in {"B", "kB"} else f"{count:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
