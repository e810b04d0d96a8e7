"""Mixtures as other trainers take them, ready to copy on pages: what `velocitune export --schedule mean` writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from velocitune_core.contracts import Comparison, Manifest, TrainResult
from velocitune_core.export import FORMATS, Block, Destination, ExportError, Mixture, export, of_label, of_training
from velocitune_core.export.block import params_yaml
from velocitune_core.export.sizes import sizes_of

MOST_SHARES = 2000  # of labels and domains together, on the page of a comparison: about 1 MB of blocks
PLACE = "\ue000{}\ue001"  # of the weight of a domain, by its number, in a text that a script fills in
FILLED = ("json", "megatron", "olmo-core", "nanotron", "streaming", "datasets", "llama-factory", "ms-swift")


@dataclass(frozen=True)
class TrainerBlock:
    """A mixture for one trainer, or why it cannot have it."""

    name: str  # as `--to` takes it
    trainer: str
    use: str  # what to do with the text
    text: str  # nothing if it is refused
    refused: str = ""


def trainer_blocks(train: TrainResult, manifest: Manifest) -> list[TrainerBlock]:
    """Return the mean mixture of a training for every trainer."""
    return _blocks(_on(of_training(train), manifest), comment=True)


def label_blocks(
    comparison: Comparison, labels: Iterable[str], manifest: Manifest | None
) -> dict[str, list[TrainerBlock]]:
    """Return by label its mean mixture for every trainer, without comments; nothing if a page cannot hold so many."""
    labels = list(labels)
    if len(labels) * len(comparison.domain_tokens) > MOST_SHARES:
        return {}
    return {label: _blocks(_on(of_label(comparison, label), manifest), comment=False) for label in labels}


def fillable_texts(domains: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by format a text in which a script puts weights (`text`), and what to do with it (`use`).

    Weights are of tokens, and the texts are for rows of equal length.
    """
    domains = list(domains)
    shares = {name: PLACE.format(number) for number, name in enumerate(domains)}
    found = {"params.yaml": {"text": params_yaml(shares), "use": "parts of params.yaml: a run holds these weights"}}
    for name in FILLED:
        to = FORMATS[name]
        block = Block(shares, {domain: to.path.replace("{domain}", domain) for domain in domains}, source="a plan")
        lengths = "" if to.unit == "sequences" else "; for rows of equal length"
        found[to.trainer if name != "json" else "JSON"] = {"text": to.write(block)[""], "use": to.use + lengths}
    return found


def _on(mixture: Mixture, manifest: Manifest | None) -> Mixture:
    """Return the mixture with the sizes of the manifest, if there is one."""
    if manifest is None:
        return mixture
    sizes = sizes_of(manifest)
    own = {name: size for name, size in sizes.domains.items() if name in mixture.shares}
    return replace(mixture, sizes=own, sequence_length=sizes.sequence_length)


def _blocks(mixture: Mixture, *, comment: bool) -> list[TrainerBlock]:
    counted = all(name in mixture.sizes and mixture.sizes[name].documents for name in mixture.shares)
    found = []
    for name, to in FORMATS.items():
        unit = None if counted or to.unit == "sequences" else "sequences"
        use = to.use if unit is None else f"{to.use}; for rows of equal length, as documents are not counted here"
        try:
            exported = export(mixture, to, Destination(schedule="mean", unit=unit))
        except ExportError as error:
            found.append(TrainerBlock(name, to.trainer, use, "", str(error)))
            continue
        text = exported.files[""] if comment else to.write(replace(exported.block, comment=()))[""]
        found.append(TrainerBlock(name, to.trainer, use, text))
    return found
