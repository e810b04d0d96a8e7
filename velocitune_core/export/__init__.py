"""A found mixture in the formats of other trainers: `python -m velocitune_core.export`."""

from velocitune_core.export.block import Block, Format
from velocitune_core.export.destination import Destination, Exported, export
from velocitune_core.export.formats import FORMATS
from velocitune_core.export.found import of_label, of_training, of_weights, read_mixture, with_manifest, with_sizes
from velocitune_core.export.mixture import DomainSize, ExportError, Mixture, Stage
from velocitune_core.export.sizes import DataSizes

__all__ = [
    "FORMATS",
    "Block",
    "DataSizes",
    "Destination",
    "DomainSize",
    "ExportError",
    "Exported",
    "Format",
    "Mixture",
    "Stage",
    "export",
    "of_label",
    "of_training",
    "of_weights",
    "read_mixture",
    "with_manifest",
    "with_sizes",
]
