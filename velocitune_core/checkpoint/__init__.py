"""Checkpoints: the tensors of a run, the folders on the disk, the writer in the background."""
