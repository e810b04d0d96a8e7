"""Losses on held-out text and on benchmark tasks."""
