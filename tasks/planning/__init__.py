"""The estimated cost of a pipeline, before it runs."""
