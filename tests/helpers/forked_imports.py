"""What the training program imports: by the process that runs are forked from, once for all of them."""

import gc
import importlib

MODULES = [
    "velocitune_core.checkpoint.background",
    "velocitune_core.model.io",
    "velocitune_core.parallel.fsdp",
    "velocitune_core.train.progress_bar",
    "velocitune_core.train.attempt",
    "velocitune_core.train.trainer",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
]
gc.disable()  # what is imported stays
for module in MODULES:
    importlib.import_module(module)
importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("llama")  # builds a table
gc.freeze()
gc.enable()
