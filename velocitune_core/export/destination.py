"""A mixture in the units, steps and places of another trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from velocitune_core.export.block import Block, BlockStage, Format
from velocitune_core.export.mixture import ExportError, Mixture, Unit
from velocitune_core.export.realised import Row, header, realised_rows, rounding_notes
from velocitune_core.export.shares import as_text, drawn_shares, mean_tokens


@dataclass(frozen=True)
class Destination:
    """The run of another trainer that a mixture is for. What is None is that of the run that the mixture comes from."""

    paths: Mapping[str, str] = field(default_factory=dict)  # by domain; "" has a template for the others
    unit: Unit | None = None  # None: the format's
    tokens: int | None = None  # of the whole run
    steps: int | None = None  # optimizer steps of the whole run
    batch_sequences: int | None = None  # per optimizer step
    schedule: str = "auto"  # stages, mean, or auto: stages where the trainer has them
    max_stages: int | None = None


@dataclass(frozen=True)
class Exported:
    """A mixture as another trainer takes it."""

    format: Format
    files: Mapping[str, str]  # as `Format.files` returns them
    rows: Sequence[Row]  # what each domain gets, by domain
    notes: Sequence[str]  # sentences
    block: Block


def export(mixture: Mixture, to: Format, destination: Destination | None = None) -> Exported:
    """Return a mixture as another trainer takes it, with the tokens and epochs that each domain then gets.

    Raises ExportError with the problems of a mixture that the trainer cannot express: field, value, and fix.
    """
    where = destination or Destination()
    unit = _unit(to, where.unit)
    mixture = _scheduled(mixture, to, where)
    block = _block(mixture, to, where, unit)
    rows = realised_rows(mixture, block, to)
    block = replace(block, epochs={row.domain: row.epochs for row in rows if row.epochs is not None})
    notes = [*mixture.notes, *_notes(block, to), *rounding_notes(rows)]
    block = replace(block, comment=header(mixture, block, to, rows, notes))
    return Exported(to, to.files(block), rows, notes, block)


def _unit(to: Format, wanted: Unit | None) -> Unit:
    if wanted is not None and wanted not in to.units:
        raise ExportError(f"unit: {to.name} draws {to.unit}, not {wanted}; leave --unit out")
    return wanted or to.unit


def _scheduled(mixture: Mixture, to: Format, where: Destination) -> Mixture:
    """Return the mixture with the stages that the trainer will have."""
    if where.schedule == "stages" and not to.stages:
        raise ExportError(f"schedule: stages: {to.trainer} holds one mixture for the whole run; give --schedule mean")
    if where.schedule == "stages" and not mixture.stages:
        raise ExportError(
            "schedule: stages: the weights are constant, or a mean over seeds; give --schedule mean, or a --seed"
        )
    if where.max_stages is not None and where.max_stages < 1:
        raise ExportError(f"max_stages: {where.max_stages} is none; give a number from 1, or --schedule mean")
    if where.schedule == "mean" or not to.stages or where.max_stages == 1:
        return mixture.held()
    return mixture if where.max_stages is None else mixture.merged(where.max_stages)


def _block(mixture: Mixture, to: Format, where: Destination, unit: Unit) -> Block:
    shares = as_text(drawn_shares(mixture.shares, unit, mixture.sizes))
    steps, tokens = where.steps or mixture.steps, where.tokens or mixture.tokens or _one_epoch(mixture)
    _positive(tokens=where.tokens, steps=where.steps, batch_sequences=where.batch_sequences)
    stages = _stages(mixture, steps, unit)
    return Block(
        shares=shares,
        paths=_paths(list(mixture.shares), where.paths, to),
        unit=unit,
        stages=stages,
        steps=steps,
        tokens=tokens,
        draws=_draws(mixture, tokens, unit),
        batch_sequences=where.batch_sequences or _batch(mixture),
        sizes=mixture.sizes,
        source=mixture.source,
    )


def _stages(mixture: Mixture, steps: int | None, unit: Unit) -> list[BlockStage]:
    """Return the stages at the same parts of a run of `steps`.

    Raises ExportError where one would last no step.
    """
    if not mixture.stages:
        return []
    assert mixture.steps is not None and steps is not None, "stages are of a run"
    starts = [round(Fraction(stage.step * steps, mixture.steps)) for stage in mixture.stages]
    ends = [*starts[1:], steps]
    if any(end <= start for start, end in zip(starts, ends, strict=True)):
        raise ExportError(
            f"steps: {steps} are too few for {len(starts)} stages, as one would last no step; "
            "give a smaller --max-stages, or --schedule mean"
        )
    return [
        BlockStage(start, end - start, as_text(drawn_shares(stage.shares, unit, mixture.sizes)))
        for stage, start, end in zip(mixture.stages, starts, ends, strict=True)
    ]


def _one_epoch(mixture: Mixture) -> int | None:
    """Return the tokens of all domains; None unless all are known."""
    if set(mixture.sizes) != set(mixture.shares):
        return None
    return sum(size.tokens for size in mixture.sizes.values())


def _draws(mixture: Mixture, tokens: int | None, unit: Unit) -> int | None:
    """Return how many sequences, or documents, so many tokens are; None where it is not known."""
    if tokens is None:
        return None
    if unit == "sequences":
        return tokens // mixture.sequence_length if mixture.sequence_length else None
    return round(sum(tokens * share / mean_tokens(name, mixture.sizes) for name, share in mixture.shares.items()))


def _batch(mixture: Mixture) -> int | None:
    if not (mixture.tokens and mixture.steps and mixture.sequence_length):
        return None
    return round(mixture.tokens / (mixture.steps * mixture.sequence_length)) or None


def _paths(domains: Sequence[str], given: Mapping[str, str], to: Format) -> dict[str, str]:
    """Return where each domain's data lies: as given by domain, else by the template given, else by the format's."""
    unknown = sorted(set(given) - {"", *domains})
    if unknown:
        raise ExportError(
            f"paths: {', '.join(unknown)}: no domain of the mixture; its domains are {', '.join(domains)}"
        )
    template = given.get("", to.path)
    if "{domain}" not in template and len(domains) > 1:
        raise ExportError(f"paths: {template!r} is one place for {len(domains)} domains; put {{domain}} into it")
    paths = {name: given.get(name, template.replace("{domain}", name)) for name in domains}
    twice = sorted({path for path in paths.values() if list(paths.values()).count(path) > 1})
    if twice:
        raise ExportError(f"paths: {', '.join(twice)}: more than one domain there; give each domain a place of its own")
    return paths


def _positive(**given: int | None) -> None:
    problems = [
        f"{name}: {value} is no number of them; give one from 1"
        for name, value in given.items()
        if value is not None and value < 1
    ]
    if problems:
        raise ExportError("\n".join(problems))


def _notes(block: Block, to: Format) -> list[str]:
    """Return what a reader of the export must know."""
    absent = [name for name in block.paths if name not in block.shares]
    notes = [f"Not drawn, as their weight is 0: {', '.join(absent)}."] if absent else []
    if block.unit == "documents":
        notes.append(
            "Shares are of documents, by the mean tokens per document in the manifest; documents that are cut off or "
            "left out change the shares of the tokens."
        )
    return [*notes, *([to.caution] if to.caution and block.stages else [])]
