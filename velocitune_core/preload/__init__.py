"""Runs of the training program that are forked from a process which has imported torch and transformers already."""
