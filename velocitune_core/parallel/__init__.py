"""The ranks of a run, and a model sharded over them."""
