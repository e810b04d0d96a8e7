"""The folder that a pipeline works in: its lock, settings and stages, and the command line of a flow."""
