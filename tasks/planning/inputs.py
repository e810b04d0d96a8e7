"""What a plan is computed from: the model's shape and the domains' sizes, measured or estimated from settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.planning.source_sizes import text_bytes
from tasks.runs.jobs import base_domains
from tasks.runs.price import shape_of
from tasks.runs.resolved_precision import resolve_precision
from tasks.workspace import paths
from tasks.workspace.base_borders import borders_before_training
from tasks.workspace.packed_data import packed_manifest, settings_digest
from velocitune_core.config import ConfigError, Domain, Params
from velocitune_core.contracts import DocumentBorders, DomainManifest, InitialLosses, Manifest, Split, Targets
from velocitune_core.data.borders import document_borders
from velocitune_core.model.build import llama_config
from velocitune_core.model.folder import ModelError
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.plan.cost import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BYTES_PER_TOKEN = 4  # of text; assumed where only the size of a file is known


@dataclass(frozen=True)
class Inputs:
    shape: ModelShape
    manifest: Manifest  # prepared/manifest.json, or a stand-in with sizes estimated from the settings
    initial: InitialLosses  # as measured, or a stand-in, which serves only to make jobs
    targets: Targets  # likewise
    assumptions: list[str]

    @property
    def estimated(self) -> bool:
        """Whether the manifest is a stand-in."""
        return not all(domain.train.file for domain in self.manifest.domains.values())


def read_inputs(params: Params) -> Inputs:
    """Read what exists in the workspace and estimate the rest.

    Raises ConfigError for a domain whose size cannot be estimated, ModelError for a model without configuration.
    """
    shape = shape_of(read_model_config(params))
    manifest, assumptions = _manifest(params, shape)
    if is_base(params):
        assumptions.append(f"the tokenizer of the base has base.vocabulary_size tokens, {shape.vocabulary_size:,}")
    names = list(manifest.domains)
    precision = resolve_precision(params.training)
    initial = InitialLosses(precision=precision, losses=dict.fromkeys(names, 2.0), tokens={}, seconds=0.0)
    if paths.INITIAL.exists():  # measured again before a run in another precision
        initial = InitialLosses.read(paths.INITIAL).model_copy(update={"precision": precision})
    targets = Targets.model_validate({"domains": {name: {"target": 1.0} for name in names}})
    return Inputs(
        shape=shape,
        manifest=manifest,
        initial=initial,
        targets=Targets.read(paths.TARGETS) if paths.TARGETS.exists() else targets,
        assumptions=assumptions,
    )


def is_base(params: Params) -> bool:
    """Whether the pipeline trains the model that it starts from."""
    return Path(params.model.path) == paths.BASE_MODEL


def read_model_config(params: Params) -> PreTrainedConfig:
    """Return the configuration of the base from the settings, or of a model's folder; its parameters are not read.

    Raises ModelError for a folder without a config.json that can be read.
    """
    from transformers import AutoConfig

    if is_base(params):
        assert params.base is not None
        return llama_config(params.base, params.data.sequence_length, params.base.vocabulary_size)
    if Path(params.model.path).is_absolute() and not Path(params.model.path).is_dir():  # which is no id of the hub
        raise ModelError(f"model.path: there is no folder {params.model.path}; name the folder of a transformers model")
    try:
        return AutoConfig.from_pretrained(params.model.path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise ModelError(
            f"model.path: cannot read config.json of {params.model.path}: {first}; name a folder that holds one, or "
            "run `python -m tasks.workspace.hub` to fetch a hub model"
        ) from None


def stand_ins_of_base(params: Params) -> dict[str, DomainManifest]:
    """Return manifests of the base's own packed domains: without `max_tokens`, which limits only the mixture."""
    domains = {name: params.domains[name] for name in base_domains(params)}
    return {
        name: _stand_in(params, name, _source_tokens(params, domain) or domain.max_tokens or 0)
        for name, domain in domains.items()
    }


def tokens_of_base(params: Params) -> int | None:
    """Return the tokens of the base's own text; None if a source is not there yet, as before the stage `corpus`."""
    found = [_source_tokens(params, params.domains[name]) for name in base_domains(params)]
    return sum(found) if all(found) else None


def _manifest(params: Params, shape: ModelShape) -> tuple[Manifest, list[str]]:
    """Return prepared/manifest.json if it fits these settings, otherwise a stand-in; and what was assumed."""
    manifest, differs = packed_manifest(params)
    if manifest is not None:
        documents = manifest.documents.model_copy(update={"mask": params.data.document_mask})
        return manifest.model_copy(update={"documents": documents}), []
    assumptions = [] if differs is None else [differs]
    domains, problems = {}, []
    for name in params.training_domains:
        domain = params.domains[name]
        tokens, reason = _tokens(params, domain)
        if not tokens:
            problems.append(f"  domains.{name}: {reason}")
        else:
            assumptions.append(f"{name}: {tokens:,} training tokens, {reason}")
            domains[name] = _stand_in(params, name, tokens)
    if problems:
        raise ConfigError(f"{paths.PARAMS}:\n" + "\n".join(problems))
    length = params.data.sequence_length
    return Manifest(
        sequence_length=length,
        vocabulary_size=shape.vocabulary_size,
        tokenizer_sha256="",
        documents=_borders(params),
        domains=domains,
    ), assumptions


def _borders(params: Params) -> DocumentBorders:
    """Return what the packing will put around documents. Raises BorderError if the tokenizer does not allow it."""
    if is_base(params):
        return borders_before_training(params.data)
    try:
        tokenizer = load_tokenizer(params.model.path)
    except ModelError:  # a plan needs no more of a model than its config.json
        return DocumentBorders(mask=params.data.document_mask)
    return document_borders(tokenizer, params.data)


def _tokens(params: Params, domain: Domain) -> tuple[int, str]:
    """Return an estimate of a domain's training tokens, and what it is based on; or 0, and what to do."""
    found, limit, budget = _source_tokens(params, domain), domain.max_tokens, params.training.token_budget
    if limit is not None and not 0 < found < limit:
        return limit, "its max_tokens"
    if found:
        return found, f"from its files at {BYTES_PER_TOKEN} bytes per token, less what is held out"
    if budget is not None:
        return budget // len(params.training_domains), "an even share of training.token_budget"
    return 0, "its size is unknown; set max_tokens or training.token_budget, or run the stage `prepare`"


def _source_tokens(params: Params, domain: Domain) -> int:
    """Estimate the tokens of the training split from the files of a source; 0 if they are not there."""
    found = text_bytes(domain.source, Path(params.data.path))
    return int(found / BYTES_PER_TOKEN * (1 - params.data.held_out_fraction))


def _stand_in(params: Params, name: str, tokens: int) -> DomainManifest:
    length = params.data.sequence_length
    held_out = params.data.held_out_sequences

    def split(sequences: int) -> Split:
        return Split(file="", documents=0, sequences=sequences, tokens=sequences * length, sha256="")

    return DomainManifest(
        train=split(max(1, tokens // length)),
        held_out=split(held_out),
        documents_read=0,
        duplicates=0,
        too_short=0,
        settings_sha256=settings_digest(params, name),
    )
