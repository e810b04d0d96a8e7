"""The cost of a pipeline, before it runs."""
