"""A mixture in the units, steps and places of another trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from velocitune_core.export.block import Block, BlockStage, Format
from velocitune_core.export.mixture import ExportError, Mixture, Unit
from velocitune_core.export.realised import Row, header, realised_rows, rounding_notes
from velocitune_core.export.shares import SMALLEST, as_text, drawn_shares, mean_tokens
from velocitune_core.spelling import with_nearest


@dataclass(frozen=True)
class Destination:
    """The run of another trainer that a mixture is for.

    What is None follows from the rest, or is that of the run that the mixture comes from.
    """

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
    notes = [*mixture.notes, *_notes(mixture, block, to), *rounding_notes(rows)]
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
    _positive(tokens=where.tokens, steps=where.steps, batch_sequences=where.batch_sequences)
    steps, tokens, batch = _run(mixture, where)
    stages = _stages(mixture, steps, unit)
    return Block(
        shares=shares,
        paths=_paths(list(mixture.shares), where.paths, to),
        unit=unit,
        stages=stages,
        steps=steps,
        tokens=tokens,
        draws=_draws(mixture, tokens, unit),
        batch_sequences=batch,
        sizes=mixture.sizes,
        source=mixture.source,
    )


def _run(mixture: Mixture, where: Destination) -> tuple[int | None, int | None, int | None]:
    """Return the steps, the tokens, and the sequences per step of the other run; None for what is not known.

    Raises ExportError where what is given contradicts itself, or does not say how long the run is.
    """
    per_step, length = _tokens_per_step(mixture, where), mixture.sequence_length
    steps, tokens = where.steps, where.tokens
    if tokens is None:
        steps = steps or mixture.steps
        if where.steps and per_step is None:
            raise ExportError(
                f"steps: {steps} of an unknown batch are no length of a run; give --tokens, or --batch-sequences"
            )
        tokens = round(steps * per_step) if steps and per_step else mixture.tokens or _one_epoch(mixture)
    if steps is None:
        steps = max(1, round(tokens / per_step)) if tokens and per_step else mixture.steps
    if where.batch_sequences and steps and tokens and per_step and abs(steps * per_step - tokens) > per_step:
        raise ExportError(
            f"tokens: {tokens} are not {steps} steps of {where.batch_sequences} sequences of {length} tokens, which "
            f"are {steps * per_step}; leave one of --tokens, --steps and --batch-sequences out"
        )
    known = steps and tokens and length
    return steps, tokens, where.batch_sequences or (round(Fraction(tokens, steps * length)) or None if known else None)


def _tokens_per_step(mixture: Mixture, where: Destination) -> Fraction | None:
    if where.batch_sequences is None:
        return Fraction(mixture.tokens, mixture.steps) if mixture.tokens and mixture.steps else None
    if mixture.sequence_length:
        return Fraction(where.batch_sequences * mixture.sequence_length)
    if where.tokens and where.steps:
        return None
    raise ExportError(
        f"batch_sequences: {where.batch_sequences} sequences of an unknown length; "
        "give the manifest of the data (--manifest), or both --tokens and --steps"
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


def _paths(domains: Sequence[str], given: Mapping[str, str], to: Format) -> dict[str, str]:
    """Return where each domain's data lies: as given by domain, else by the template given, else by the format's."""
    unknown = sorted(set(given) - {"", *domains})
    if unknown:
        raise ExportError(
            f"paths: {with_nearest(unknown, domains)}: no domain of the mixture; its domains are {', '.join(domains)}"
        )
    template = given.get("", to.path)
    if "{domain}" not in template and len(domains) > 1:
        raise ExportError(f"paths: {template!r} is one place for {len(domains)} domains; put {{domain}} into it")
    paths = {name: given.get(name, template).replace("{domain}", name) for name in domains}
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


def _notes(mixture: Mixture, block: Block, to: Format) -> list[str]:
    """Return what a reader of the export must know."""
    wanted, written = [mixture, *mixture.stages], [block, *block.stages]
    never = [name for name in mixture.shares if not any(each.shares[name] > 0 for each in wanted)]
    small = {
        name: None
        for one, other in zip(wanted, written, strict=True)
        for name, share in one.shares.items()
        if share > 0 and name not in other.shares
    }
    notes = [f"Not drawn, as their weight is 0: {', '.join(never)}."] if never else []
    if small:
        notes.append(f"Shares of the draws below {SMALLEST:g} are taken as 0: {', '.join(small)}.")
    if block.unit == "documents":
        notes.append(
            "Shares are of documents, by the mean tokens per document in the manifest; documents that are cut off or "
            "left out change the shares of the tokens."
        )
    return [*notes, *([to.caution] if to.caution and block.stages else [])]
