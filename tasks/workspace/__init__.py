"""The folder that a pipeline works in: its lock, its settings, its stages."""
